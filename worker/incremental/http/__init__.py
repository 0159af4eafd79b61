"""HTTP endpoint of a worker for live input."""

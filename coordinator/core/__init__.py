"""TODO: coordinator/core."""

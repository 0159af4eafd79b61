"""TODO: coordinator/storage."""

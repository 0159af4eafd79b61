"""TODO: coordinator/publish."""

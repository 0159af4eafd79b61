"""TODO: coordinator/sites."""

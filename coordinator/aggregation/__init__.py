"""TODO: coordinator/aggregation."""

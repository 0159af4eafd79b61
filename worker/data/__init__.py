"""TODO: worker/data."""

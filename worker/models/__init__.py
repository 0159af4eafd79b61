"""TODO: worker/models."""

"""TODO: learning/models."""

"""TODO: cli/models."""

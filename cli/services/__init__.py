"""TODO: cli/services."""

"""TODO: cli/control."""

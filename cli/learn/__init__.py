"""TODO: cli/learn."""

"""TODO: cli/demo."""

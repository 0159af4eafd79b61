"""TODO: cli/sites."""

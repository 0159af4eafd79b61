"""TODO: cli/run."""

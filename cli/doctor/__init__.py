"""TODO: cli/doctor."""

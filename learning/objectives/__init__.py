"""TODO: learning/objectives."""

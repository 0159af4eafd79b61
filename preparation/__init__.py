"""TODO: preparation."""

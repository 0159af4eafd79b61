"""TODO: tui/data."""

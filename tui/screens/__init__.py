"""TODO: tui/screens."""

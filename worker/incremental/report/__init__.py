"""Report on what was learned from live input."""

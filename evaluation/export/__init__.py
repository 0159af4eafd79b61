"""TODO: evaluation/export."""

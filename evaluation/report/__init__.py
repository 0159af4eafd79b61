"""TODO: evaluation/report."""

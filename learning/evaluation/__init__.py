"""TODO: learning/evaluation."""

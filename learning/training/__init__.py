"""TODO: learning/training."""

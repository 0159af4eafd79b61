"""TODO: worker/incremental/training."""

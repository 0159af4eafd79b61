"""TODO: worker/incremental/validation."""

"""TODO: worker/incremental/serving."""

"""TODO: worker/incremental/report."""

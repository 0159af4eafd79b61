"""TODO: worker/incremental/inbox."""

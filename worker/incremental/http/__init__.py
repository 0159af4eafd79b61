"""TODO: worker/incremental/http."""

"""TODO: worker/site."""

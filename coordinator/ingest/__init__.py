"""TODO: coordinator/ingest."""

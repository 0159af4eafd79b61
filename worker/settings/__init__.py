"""Settings of a site: `worker.toml` in the state directory, and what follows from it."""

"""Models of a worker: where they come from, and the one in memory."""

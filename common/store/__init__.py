"""The Redis store, and the live view of a run that it holds."""

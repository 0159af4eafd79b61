"""Soak: one federation for an hour, whose clients, workers and sites come and go."""

"""Trains beside the data: takes tasks, trains, publishes deltas; says what it does meanwhile."""

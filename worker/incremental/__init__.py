"""Incremental learning: a client's model learns from its users between rounds, behind a gate."""

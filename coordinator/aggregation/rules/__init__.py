"""Aggregation rules: how the updates of a buffer become the next version."""

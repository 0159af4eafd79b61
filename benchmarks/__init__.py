"""Measurements: each module is a command, and its figures stand in docs/benchmarks.md."""

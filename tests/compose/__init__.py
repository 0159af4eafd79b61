"""Tests of the compose files with a real Docker engine: `python -m tests.compose.run`."""

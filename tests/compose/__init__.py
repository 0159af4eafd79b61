"""The compose file, against a real Docker engine: `python -m tests.compose.run`."""

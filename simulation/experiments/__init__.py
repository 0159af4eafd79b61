"""Experiments on asynchronous federation, each one command: `python -m simulation.experiments`."""

"""Terminal user interface: shows a run, and sends commands to its coordinator.

Everything goes through the store and the run directory in `common`.
"""

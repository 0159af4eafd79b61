"""Panes of `fccl tui`, one per file: each has a `show` method for the latest snapshot."""

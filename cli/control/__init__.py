"""Commands that show a run and control it."""

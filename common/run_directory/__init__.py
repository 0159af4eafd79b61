"""Read-only access to a run directory, without torch, for commands and viewers."""

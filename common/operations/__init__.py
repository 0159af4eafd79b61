"""Health and metrics of long-running processes."""

"""Plug-ins of other packages, found by the entry points that they declare."""

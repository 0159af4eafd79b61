"""Incremental learning: live input of users becomes part of a client's updates."""

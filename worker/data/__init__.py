"""Rows of the clients that a worker serves."""

"""Receiving from the sites: their queues, and what a message amounts to."""

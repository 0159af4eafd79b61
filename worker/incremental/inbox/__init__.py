"""Inbox of a client: items, their states, and what was learned from them."""

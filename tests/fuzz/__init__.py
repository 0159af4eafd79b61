"""Hostile input for everything that reads foreign bytes: `make fuzz`, docs/reliability.md."""

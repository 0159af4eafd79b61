"""The configuration of a federation."""

"""Grids: the same run simulated with every combination of some settings, as one table."""

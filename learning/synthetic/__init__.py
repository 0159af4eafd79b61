"""Synthetic rows, which need no download: instructions, preference pairs and reviews."""

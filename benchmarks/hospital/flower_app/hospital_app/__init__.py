"""Flower app of the hospital scenario."""

"""Robust rules: aggregates that a minority of faulty or hostile updates cannot move far."""

"""Pruning of encoders: smaller base models, made before a federation starts."""

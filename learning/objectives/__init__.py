"""Objectives: ways to learn, as values with `encode`, `collate`, `loss` and `measure`."""

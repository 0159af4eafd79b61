"""Objectives: what can be learned, as values with `encode`, `collate`, `loss` and `measure`."""

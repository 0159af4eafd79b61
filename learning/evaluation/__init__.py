"""Evaluation of models on rows: scores by row, metrics of sets of rows, generated answers."""

"""Figures of evaluations: sums that sites send, and the metrics that follow from them."""

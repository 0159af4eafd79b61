"""Formula of a version: the factors of each update's coefficient, and the sum of the deltas."""

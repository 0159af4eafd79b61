"""Formula of the step: the coefficient of each update, and the sum of the deltas."""

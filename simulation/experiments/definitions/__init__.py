"""Definitions of the experiments: what is compared, and what was expected before they were run."""

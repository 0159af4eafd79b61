"""Encoders made smaller: what can go, taking it away, and what a pruned model is."""

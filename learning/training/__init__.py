"""Local training: batches, the loop of steps, and what the machine computes with."""

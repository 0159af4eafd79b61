"""Local training: batches, the loop of steps, device and precision."""

"""Text of our own: instructions, preference pairs and sentiment, deterministic by seed."""

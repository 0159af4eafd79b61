"""Prompt forms: how rows become the text that a model reads, and which of it is learned."""

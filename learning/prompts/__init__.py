"""Prompt forms: how rows become the text of a model, and which parts of it are learned."""

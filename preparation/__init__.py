"""Preparation of a run: rows dealt to clients, the base model and version 0."""

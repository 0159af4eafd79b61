"""Invited sites: the registry, and their credentials on both servers."""

"""Persistent collections: a change returns a new collection that shares most of the old one."""

"""Screens on top of the panes: help, command palette, questions, and details of one row."""

"""Rows of any source, of three kinds, dealt to clients."""

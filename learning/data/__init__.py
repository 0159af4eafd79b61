"""Data: rows from any source, of three kinds, and their partition over clients."""

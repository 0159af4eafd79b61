"""Export of a version as a directory for others, with its model card."""

"""Export of a version as a directory to share, with its model card."""

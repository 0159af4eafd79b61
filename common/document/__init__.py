"""Documents made of blocks, and their renderers."""

"""Shows the federation: reads the store through `common`, and nothing else."""

"""Shows the federation, and sends orders to it: through the store in `common`, and nothing else."""

"""Commands about models: `evaluate`, `export` and `prune`."""

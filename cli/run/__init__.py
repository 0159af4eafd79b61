"""Commands that run a federation: `init`, `prepare`, `coordinator` and `worker`."""

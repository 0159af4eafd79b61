"""The `fccl` command, and whole federations on one machine."""

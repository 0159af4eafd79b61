"""The front door: the `fccl` command, and whole federations on one machine."""

"""The command `fccl doctor`."""

"""The coordinator's core in virtual time, with virtual clients: `fccl simulate`."""

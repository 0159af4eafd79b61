"""`fccl simulate`: the coordinator's core in virtual time."""

"""Models that a worker saves for `fccl try`, and answers by them."""

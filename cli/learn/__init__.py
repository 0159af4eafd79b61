"""Commands for live input: `fccl learn`, `fccl try`, `fccl inbox`."""

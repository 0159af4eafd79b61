"""Evaluators: plug-ins that evaluate versions of a run, as entry points of `fccl.evaluators`."""

"""Trackers: experiment trackers that follow a run, as entry points of `fccl.trackers`."""

"""Source of live samples: answers of versions to held-out prompts during the run.

The coordinator loads no model. Its starter passes an implementation that does
(`evaluation/live_samples.py`); the service offers each new version to it and collects the answers
at its next tick.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event as Flag

from common.protocol.versions import SampleAnswer
from coordinator.core.events import LogEvent

PATIENCE_S = 30.0
"""Longest wait of `finish` for outstanding answers, in seconds."""


class SamplesSource:
    """Source that has no samples. Implementations override the methods that they need.

    The coordinator's main loop calls all methods: except for `finish` and `close` they return
    immediately, and none of them raises.
    """

    def start(self, version: int, answers: Sequence[SampleAnswer]) -> None:
        """Begin to sample version 0 and the newest one, except for the existing answers."""

    def offer(self, version: int) -> None:
        """Sample a new version in the run directory; slow sources may skip it."""

    def collect(self) -> tuple[list[SampleAnswer], list[LogEvent]]:
        """Return the answers since the last call, and events about errors."""
        return [], []

    def finish(self, stop: Flag) -> None:
        """Wait a limited time for outstanding answers, or until `stop` is set; then close."""

    def close(self) -> None:
        """End immediately, without the answer that is being generated. May be repeated."""

"""Source of live samples: what versions answer to held-out prompts while the run goes on.

The coordinator loads no model. Whoever starts it passes an implementation that does
(`evaluation/live_samples.py`); the service offers each new version to it and collects the answers
at its next tick.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event as Flag

from common.protocol.versions import SampleAnswer
from coordinator.core.events import LogEvent

PATIENCE_S = 30.0
"""Longest time that `finish` waits for outstanding answers, in seconds."""


class SamplesSource:
    """Source that has no samples. Implementations override the methods that they need.

    All methods are called by the coordinator's main loop: except for `finish` and `close` they
    return at once, and none of them raises.
    """

    def start(self, version: int, answers: Sequence[SampleAnswer]) -> None:
        """Begin to ask version 0 and the newest version.

        Args:
            version: The newest version.
            answers: Answers that the run directory already holds. They are not asked for again.
        """

    def offer(self, version: int) -> None:
        """Ask a version that now lies in the run directory; slow sources may skip it."""

    def collect(self) -> tuple[list[SampleAnswer], list[LogEvent]]:
        """Return the answers since the last call, and events about what went wrong."""
        return [], []

    def finish(self, stop: Flag) -> None:
        """Wait a limited time for outstanding answers, or until `stop` is set; then close."""

    def close(self) -> None:
        """End at once; an answer that is being generated is dropped. May be repeated."""

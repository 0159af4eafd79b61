"""Virtual time: a heap of timed events, which happen in the order of their times."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

EPOCH = 1_767_225_600.0
"""Time at which every simulated run begins: 2026-01-01, 00:00 UTC."""


class VirtualClock:
    """The present virtual time, and the events to come. Equal times keep the order of planning."""

    def __init__(self) -> None:
        self.seconds = 0.0  # since the run began
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    @property
    def now(self) -> float:
        """Seconds since the Unix epoch, for records."""
        return EPOCH + self.seconds

    def at(self, seconds: float, happen: Callable[[], None]) -> None:
        """Plan an event at a time since the run began."""
        heapq.heappush(self._heap, (max(seconds, self.seconds), next(self._order), happen))

    def after(self, delay: float, happen: Callable[[], None]) -> None:
        self.at(self.seconds + delay, happen)

    def next_time(self) -> float:
        """Return the time of the next event; infinite if there is none."""
        return self._heap[0][0] if self._heap else float("inf")

    def advance(self) -> None:
        """Move to the next event, and let it happen."""
        self.seconds, _, happen = heapq.heappop(self._heap)
        happen()

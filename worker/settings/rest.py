"""Rest of a worker outside the hours of its site."""

from __future__ import annotations

from collections.abc import Sequence

from common.clock import Clock
from worker.settings import hours
from worker.settings.hours import Window


class Rest:
    """Answers when the worker may take a task again, by the clock of the site."""

    def __init__(self, windows: Sequence[Window], clock: Clock) -> None:
        self._windows, self._clock = windows, clock
        self._until = 0.0

    def until(self) -> float | None:
        """Return the time at which the site works again; None while it works."""
        now = self._clock()
        if hours.is_open(self._windows, now):
            return None
        # The search takes milliseconds, and its result holds until then.
        if not now < self._until:
            self._until = hours.next_opening(self._windows, now)
        return self._until

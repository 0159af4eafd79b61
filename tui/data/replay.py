"""Replay of a recorded run: snapshots like those of `tui/data/reader.py`, on a clock of its own.

Needs no server. `tui/data/recorded_views.py` builds the views.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from common.run_directory.recorded_run import RecordedRun
from common.store.view import FederationView
from tui.data.reader import Snapshot
from tui.data.recorded_views import count_until, updates_by_worker, view_at, workers_at

SPEED = 60.0  # seconds of the run per second
KEPT_TABLES = (
    "versions",
    "events",
    "clients",
    "samples",
    "evaluations",
    "contributions",
    "evaluators",
)
SLOWEST, FASTEST = 0.125, 2.0**16


@dataclass(frozen=True)
class PlaybackClock:
    """Virtual time that runs `speed` times as fast as the monotonic clock, until its end."""

    since: float  # a moment on the monotonic clock
    at: float  # the virtual time at that moment
    end: float  # the last virtual time
    speed: float
    paused: bool = False

    def time(self, now: float) -> float:
        """Return the virtual time at a moment of the monotonic clock."""
        passed = 0.0 if self.paused else max(0.0, now - self.since) * self.speed
        return min(self.end, self.at + passed)

    def changed(self, now: float, speed: float, paused: bool) -> PlaybackClock:
        """Return a clock that continues from `now`; the speed is kept within the limits."""
        speed = max(SLOWEST, min(FASTEST, speed))
        return replace(self, since=now, at=self.time(now), speed=speed, paused=paused)


class Replay:
    """Source of snapshots from a recorded run, in place of a `ReaderThread`."""

    def __init__(
        self,
        run: RecordedRun,
        speed: float = SPEED,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a replay that stays at the beginning until `start` is called.

        `speed` is in seconds of the run per second.
        """
        self.name = run.config.run.name
        self._monotonic = monotonic
        self._clock = PlaybackClock(monotonic(), run.started_at, run.ended_at, speed, paused=True)
        self._views = _ViewCache(run)

    def start(self) -> None:
        self._change(self._clock.speed, paused=False)

    def stop(self) -> None:
        self._change(self._clock.speed, paused=True)

    def speed_up(self) -> None:
        self._change(self._clock.speed * 2, self._clock.paused)

    def slow_down(self) -> None:
        self._change(self._clock.speed / 2, self._clock.paused)

    def toggle_pause(self) -> None:
        self._change(self._clock.speed, not self._clock.paused)

    def latest(self) -> Snapshot:
        """Return the run as it was at the virtual time."""
        now = self._monotonic()
        at = self._clock.time(now)
        clock = time.strftime("%H:%M:%S", time.localtime(at))
        state = ", paused" if self._clock.paused else ""
        state = ", at the end" if at >= self._clock.end else state
        detail = f"replay {clock} ×{self._clock.speed:g}{state}"
        return Snapshot(
            "replay", self._views.view(at), read_at=now, changed_at=now, detail=detail, wall_time=at
        )

    def _change(self, speed: float, paused: bool) -> None:
        self._clock = self._clock.changed(self._monotonic(), speed, paused)


class _ViewCache:
    """The last view. Tables that have not changed since are the same objects in the next one."""

    def __init__(self, run: RecordedRun) -> None:
        self._run = run
        self._updates = updates_by_worker(run)
        self._counts: tuple[int, ...] = ()
        self._view: FederationView | None = None

    def view(self, at: float) -> FederationView:
        run = self._run
        tables = (run.versions, run.events, run.attempts, run.receipts, run.updates, run.samples)
        evaluated = (run.evaluations, run.rounds, run.scores, run.evaluators)
        ended = sum(each.closed_at is not None and each.closed_at <= at for each in run.rounds)
        counts = (*(count_until(table, at) for table in (*tables, *evaluated)), ended)
        if self._view is None or counts != self._counts:
            previous, self._view, self._counts = self._view, view_at(run, at), counts
            for name in KEPT_TABLES:
                if previous and getattr(previous, name) == getattr(self._view, name):
                    self._view = replace(self._view, **{name: getattr(previous, name)})
        info = self._view.info.model_copy(update={"updated_at": at})
        return replace(self._view, info=info, workers=workers_at(run, self._updates, at))

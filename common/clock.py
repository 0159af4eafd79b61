"""The type of a clock, so that tests can control the time; and times as text for people."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

Clock = Callable[[], float]
"""Seconds since the Unix epoch."""

wall_clock: Clock = time.time


def steady_clock() -> Clock:
    """Return a clock that begins at the present time and does not jump when that is corrected.

    Where the system allows, it counts the time for which a machine sleeps.
    """
    begun, source = time.time(), getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    first = time.clock_gettime(source)
    return lambda: begun + time.clock_gettime(source) - first


def format_time(at: float) -> str:
    """Return a time within the next days as day of the week and local time."""
    return f"{datetime.fromtimestamp(at):%a %H:%M}"

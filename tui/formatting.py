"""Numbers, sizes, times and events as text for people."""

from __future__ import annotations

import time
from collections.abc import Mapping

from common.protocol.feed import Event

MISSING = "-"
LEVEL_MARKS = {"info": " ", "warning": "!", "error": "x"}


def format_duration(seconds: float) -> str:
    """Return a duration such as `45 s`, `3 min`, `2 h 5 min` or `3 d 4 h`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def format_number(value: float | None, digits: int = 3) -> str:
    """Return a number with `digits` decimals, or a dash for None."""
    return MISSING if value is None else f"{value:.{digits}f}"


def format_parts(seconds: Mapping[str, float]) -> str:
    """Return where time went, such as `training 14.2 s, load 0.3, measure 0.8`, without zeros."""
    rounded = {name: f"{value:.1f}" for name, value in seconds.items()}
    parts = [f"{name} {value}" for name, value in rounded.items() if value != "0.0"]
    return ", ".join([f"{part} s" for part in parts[:1]] + parts[1:])


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: `1 worker`, `2 workers`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def format_event(event: Event) -> str:
    """Return an event as a line: `12:34:56   version     version 3: …`.

    The mark after the time is `!` for a warning and `x` for an error.
    """
    clock = time.strftime("%H:%M:%S", time.localtime(event.at))
    return f"{clock} {LEVEL_MARKS[event.level]} {event.kind:<11} {event.text}"

"""Hours in which a site works: windows of local time, by day of the week.

Pure: the time is passed in, in seconds since the epoch. What counts is what a clock on the wall of
the site shows, so a window from 22:00 to 06:00 lasts seven or nine hours when summer time begins or
ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES = 24 * 60
_HORIZON = 15 * _DAY_MINUTES
"""Minutes in which every window opens; in one week, summer time may skip it."""
_SPAN = re.compile(r"(\d\d?):(\d\d)-(\d\d?):(\d\d)")
_EXAMPLE = 'write e.g. "22:00-06:00", "mon-fri 20:00-07:00" or "sat,sun"'


@dataclass(frozen=True)
class Window:
    """Span of time on some days of the week.

    Attributes:
        days: Days on which it opens; 0 is Monday.
        start: Minutes after midnight.
        end: Minutes after midnight, exclusive; on the next day unless it is after the start.
    """

    days: frozenset[int]
    start: int
    end: int

    def contains(self, local: datetime) -> bool:
        today, minute = local.weekday(), local.hour * 60 + local.minute
        if self.start < self.end:
            return today in self.days and self.start <= minute < self.end
        opened_yesterday = (today - 1) % 7 in self.days
        return (today in self.days and minute >= self.start) or (
            opened_yesterday and minute < self.end
        )


def parse_window(text: str) -> Window:
    """Return the window that a text describes: days, a span of time, or both.

    Raises:
        ValueError: The text describes none.
    """
    words = text.lower().split()
    if not 0 < len(words) <= 2:
        raise ValueError(f"{text!r:.80} is not a window of time: {_EXAMPLE}")
    span = _SPAN.fullmatch(words[-1])
    days = frozenset(range(7))
    if span is None or len(words) == 2:
        days = frozenset(_parse_days(words[0]))
    if span is None and len(words) == 2:
        raise ValueError(f"{words[1]!r:.80} is not a span of time: {_EXAMPLE}")
    start, end = (0, _DAY_MINUTES) if span is None else _parse_span(span)
    return Window(days, start, end)


def is_open(windows: Sequence[Window], now: float, zone: tzinfo | None = None) -> bool:
    """Return whether the site works; without windows it always does.

    `zone` is the time zone of the site; None is that of this machine.
    """
    local = datetime.fromtimestamp(now, zone)
    return not windows or any(window.contains(local) for window in windows)


def next_opening(windows: Sequence[Window], now: float, zone: tzinfo | None = None) -> float:
    """Return the earliest time from `now` on at which the site works."""
    if is_open(windows, now, zone):
        return now
    minute = now // 60 * 60
    for _ in range(_HORIZON):
        minute += 60
        if is_open(windows, minute, zone):
            return minute
    raise AssertionError("every window opens once a week")


def _parse_days(text: str) -> Iterator[int]:
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise ValueError(f"{part!r:.80} is not a day of the week: {_EXAMPLE}")
        day, end = DAYS.index(first), DAYS.index(last or first)
        yield day
        while day != end:
            day = (day + 1) % 7
            yield day


def _parse_span(span: re.Match[str]) -> tuple[int, int]:
    hour, minute, end_hour, end_minute = map(int, span.groups())
    start, end = 60 * hour + minute, 60 * end_hour + end_minute
    if minute > 59 or end_minute > 59 or start >= _DAY_MINUTES or end > _DAY_MINUTES:
        raise ValueError(f"{span[0]} is not a span of time: hours go from 00:00 to 24:00")
    if start == end:
        raise ValueError(f"{span[0]} begins and ends at the same time: name days for whole days")
    return start, end

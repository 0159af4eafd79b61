"""Times at which a client's machine is off, and at which its network is cut."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

Interval = tuple[float, float]
"""Start and end, in seconds since the run began; the end is infinite if nothing comes after it."""


def merge(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Return the union of intervals, in order and without overlaps."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return tuple(merged)


def is_inside(intervals: Sequence[Interval], at: float) -> bool:
    """Return whether a time is in one of the intervals, whose ends do not belong to them."""
    return any(start <= at < end for start, end in intervals)


def elapse(cuts: Sequence[Interval], start: float, seconds: float) -> float:
    """Return the time at which something ends that takes `seconds` and stands still in `cuts`.

    Args:
        cuts: Intervals in order, without overlaps.
        start: Time at which it begins.
        seconds: Time that it takes outside the cuts.
    """
    at, left = start, seconds
    for begin, end in cuts:
        if end <= at:
            continue
        if at + left < begin:
            break
        left -= max(0.0, begin - at)
        at = max(at, end)
    return at + left


def random_outages(
    share: float, on_s: float, rng: np.random.Generator, until: float
) -> Iterator[Interval]:
    """Yield the times at which a machine is off, up to `until`.

    Times on and off are exponential, with the mean `on_s` of those on and with the `share` of all
    time on; the machine is on with that probability at the beginning.
    """
    if share >= 1:
        return
    off_s = on_s * (1 - share) / share
    at = 0.0
    if rng.random() >= share:
        at = float(rng.exponential(off_s))
        yield 0.0, at
    while at < until:
        start = at + float(rng.exponential(on_s))
        at = start + float(rng.exponential(off_s))
        yield start, at


def until_gone(outages: Iterable[Interval], gone_at: float) -> Iterator[Interval]:
    """Yield outages up to the time at which a client is gone for good."""
    for start, end in outages:
        if end >= gone_at:
            yield min(start, gone_at), math.inf
            return
        yield start, end
    if gone_at < math.inf:
        yield gone_at, math.inf

"""Sparklines: numbers as bars of one character each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

BARS = "▁▂▃▄▅▆▇█"
GAP = "·"


def sparkline(values: Sequence[float | None], low: float, high: float) -> str:
    """Return a bar per value, scaled from `low` to `high`; a dot for None."""
    span = high - low
    return "".join(GAP if value is None else _bar(value - low, span) for value in values)


def _bar(value: float, span: float) -> str:
    if span <= 0:
        return BARS[0]
    return BARS[max(0, min(7, round(7 * value / span)))]


def downsample(values: Sequence[float], count: int) -> list[float]:
    """Return at most `count` numbers: means of neighbours, which keep the whole history."""
    if len(values) <= count:
        return list(values)
    edges = [i * len(values) // count for i in range(count + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]

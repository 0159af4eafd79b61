"""Means with 95 % intervals over seeds, of values and of paired ratios (Student's t)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from statistics import fmean, stdev
from typing import Any


@dataclass(frozen=True)
class Estimate:
    """Mean and the ends of its interval; they are None for fewer than two values."""

    mean: float
    low: float | None = None
    high: float | None = None

    def format(self, digits: int = 3) -> str:
        """Return it as text: `1.234 [1.1, 1.4]`."""
        text = f"{self.mean:.{digits}f}"
        if self.low is None or self.high is None:
            return text
        return f"{text} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def scaled(value: Estimate, factor: float) -> Estimate:
    """Return an estimate in another unit."""
    low, high = (None if end is None else factor * end for end in (value.low, value.high))
    return Estimate(factor * value.mean, low, high)


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return the mean with its interval; None without values."""
    if not values:
        return None
    mean = fmean(values)
    if len(values) < 2:
        return Estimate(mean)
    stats: Any = import_module("scipy.stats")  # takes half a second

    half = float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


def estimate_ratio(ratios: Sequence[float]) -> Estimate | None:
    """Return the geometric mean of positive ratios, with the interval of their logarithms."""
    found = estimate([math.log(ratio) for ratio in ratios])
    if found is None:
        return None
    low, high = (None if end is None else math.exp(end) for end in (found.low, found.high))
    return Estimate(math.exp(found.mean), low, high)

"""How fast each quantity of a soak grew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import theilslopes

HOUR_S = 3600.0
WARM_UP = 1 / 3
"""Share of the time that is left out at the start, when caches and heaps fill."""


@dataclass(frozen=True)
class Growth:
    """Change of one quantity after the warm-up.

    Attributes:
        first: Median of the first third of the rest.
        last: Median of the last third of the rest.
        per_hour: Theil-Sen estimate of the slope (Sen 1968): the median of the slopes between all
            pairs of samples, so that single peaks do not count.
        low: Lower end of the slope's 95 % confidence interval.
        high: Upper end of it.
    """

    name: str
    first: float
    last: float
    per_hour: float
    low: float
    high: float


def growth(samples: Sequence[dict[str, float]]) -> list[Growth]:
    """Return the growth of each quantity that all samples have.

    Raises:
        ValueError: There are fewer than nine samples.
    """
    kept = samples[int(len(samples) * WARM_UP) :]
    if len(samples) < 9:
        raise ValueError(f"{len(samples)} samples are too few for a slope")
    hours = [s["seconds"] / HOUR_S for s in kept]
    names = [name for name in kept[0] if name != "seconds" and all(name in s for s in kept)]
    return [_growth(name, hours, [s[name] for s in kept]) for name in names]


def table(rows: Sequence[Growth]) -> str:
    """Return a Markdown table; memory and disk are in MiB, all else are counts."""
    lines = ["| | at first | at the end | per hour (95 %) |", "|---|---|---|---|"]
    for row in rows:
        slope = f"{row.per_hour:+.2f} ({row.low:+.2f} to {row.high:+.2f})"
        lines.append(f"| {row.name} | {row.first:.1f} | {row.last:.1f} | {slope} |")
    return "\n".join(lines)


def _growth(name: str, hours: list[float], values: list[float]) -> Growth:
    third = max(1, len(values) // 3)
    slope, _, low, high = theilslopes(values, hours)
    first, last = float(np.median(values[:third])), float(np.median(values[-third:]))
    return Growth(name, first, last, float(slope), float(low), float(high))

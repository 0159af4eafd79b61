"""Aggregation weights by client and version, and the staleness of applied updates."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from common.protocol.versions import VersionSummary

OLDEST = 1000


def weights_by_client(versions: Iterable[VersionSummary]) -> dict[str, dict[int, float]]:
    """Return the weight of each client in each version, summed over its updates."""
    table: dict[str, dict[int, float]] = {}
    for summary in versions:
        for update in summary.updates:
            row = table.setdefault(update.client_id, {})
            row[summary.version] = row.get(summary.version, 0.0) + update.weight
    return table


def natural_key(name: str) -> tuple[tuple[int, str], ...]:
    """Return a sort key that puts `client_10` after `client_9`."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return tuple(
        (int(part), "") if part.isascii() and part.isdigit() else (-1, part) for part in parts
    )


def weight_digit(weight: float | None, largest: float) -> str:
    """Return a weight as a digit from 0 to 9, where 9 is the largest; blank for no update."""
    if weight is None:
        return " "
    return str(round(9 * weight / largest)) if largest > 0 else "0"


def count_staleness(versions: Iterable[VersionSummary]) -> dict[int, int]:
    """Return the number of updates by staleness, from 0 to the largest without gaps.

    Those above `OLDEST`, which a damaged run may claim, count as that.
    """
    counts = Counter(min(update.staleness, OLDEST) for each in versions for update in each.updates)
    return {age: counts[age] for age in range(max(counts, default=-1) + 1)}


def histogram_bins(counts: Mapping[int, int], most: int) -> list[tuple[str, int]]:
    """Return a histogram in at most `most` labelled bins, of which the last takes the rest."""
    rows = [(str(value), counts[value]) for value in sorted(counts)]
    if len(rows) <= most:
        return rows
    rest = sum(count for _, count in rows[most - 1 :])
    return [*rows[: most - 1], (f"{most - 1}+", rest)]

"""Participation factor r: a balance between clients that answer often and seldom.

A factor of `coordinator/aggregation/coefficients.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from coordinator.core.state import ClientState

RANGE = (0.5, 2.0)


def participation_factor(own: float, mean: float) -> float:
    """Return r = clip(mean participation / own participation, 0.5, 2).

    Buffered asynchronous averaging drifts toward clients that answer often. Counting each client
    by the inverse of its participation, which is above 0, undoes the drift within bounds.
    """
    return min(RANGE[1], max(RANGE[0], mean / own))


def effective_participation(
    clients: Mapping[str, ClientState], buffered: Counter[str]
) -> dict[str, float]:
    """Return m = 1 + applied updates + ½ · buffered updates, for the clients that took part.

    An update of the buffer counts half. Counted whole, the clients that come first in a turn would
    always look too busy; not counted, those that come last would look too idle. The 1 keeps the
    first few updates from looking like a trend.
    """
    counts = {name: 1.0 + c.participation for name, c in clients.items() if c.participation}
    for client, updates in buffered.items():
        counts[client] = counts.get(client, 1.0) + updates / 2
    return counts

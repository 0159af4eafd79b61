"""Participation factor r: a balance between clients that answer often and seldom.

A factor of `coordinator/aggregation/coefficients.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coordinator.core.state import ClientState

RANGE = (0.5, 2.0)


def participation_factor(own: float, mean: float) -> float:
    """Return r = clip(mean participation / own participation, 0.5, 2).

    Buffered asynchronous averaging drifts toward clients that answer often. Counting each client
    by the inverse of its participation, which is above 0, undoes the drift within bounds.
    """
    return min(RANGE[1], max(RANGE[0], mean / own))


def relative_steps(steps: Sequence[int], weights: Sequence[float]) -> list[float]:
    """Return qᵢ / q̄ with q̄ = Σ w q / Σ w, for updates of different numbers of local steps qᵢ.

    Its inverse times q̄ is the normalisation of FedNova (Wang et al., 2020, equation 5): without it
    the federation optimises an objective in which fast clients count for more.
    """
    mean = sum(w * q for w, q in zip(weights, steps, strict=True)) / sum(weights)
    return [q / mean for q in steps]


def effective_participation(
    clients: Mapping[str, ClientState],
    buffered: Mapping[str, int],
    participants: int,
    participation: int,
) -> tuple[dict[str, float], float]:
    """Return m = 1 + applied updates + ½ · buffered updates of each client in the buffer; its mean.

    The mean is over all clients that took part. An update of the buffer counts half. Counted whole,
    the clients that come first in a turn would always look too busy; not counted, those that come
    last would look too idle. The 1 keeps the first few updates from looking like a trend.

    Args:
        clients: Histories of at least the clients that have applied updates.
        buffered: Number of updates in the buffer, by client.
        participants: Number of clients that have applied updates.
        participation: Number of applied updates of all clients.
    """
    own, count, total = dict[str, float](), participants, float(participants + participation)
    for name, updates in buffered.items():
        known = clients.get(name)
        applied = known.participation if known else 0
        own[name] = 1.0 + applied + updates / 2
        count += not applied
        total += updates / 2 + (not applied)  # multiples of ½: exact in any order
    return own, total / count

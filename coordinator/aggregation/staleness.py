"""How much less an update counts that was trained from an older version.

Between `admission` and `aggregation` on an update's way.
"""

from __future__ import annotations


def staleness_factor(staleness: int, exponent: float) -> float:
    """s(τ) = (1 + τ)^(−a): 1 for a fresh update; a = 0 switches the discount off.

    Source: Xie, Koyejo, Gupta, "Asynchronous Federated Optimization" (FedAsync), section 5.
    """
    return float((1 + staleness) ** -exponent)


def participation(mine: float, mean: float) -> float:
    """Balance of fast and slow clients: r = clip(mean participation / mine, 0.5, 2).

    Buffered asynchronous averaging drifts toward clients that answer often; counting each client
    by the inverse of its arrivals undoes the drift, within bounds.

    Args:
        mine: The client's updates so far, above 0; see `coordinator.core.schedule` for how those of the
            buffer at hand count.
        mean: The same, over the clients that took part.
    """
    return min(2.0, max(0.5, mean / mine))

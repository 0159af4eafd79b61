"""Staleness factor s(τ): the discount of updates that were trained from an older version.

A factor of `coordinator/aggregation/coefficients.py`.
"""

from __future__ import annotations


def staleness_factor(staleness: int, exponent: float) -> float:
    """Return s(τ) = (1 + τ)^(−a): 1 for a fresh update; a = 0 switches the discount off.

    Source: Xie, Koyejo, Gupta, "Asynchronous Federated Optimization" (FedAsync), section 5.
    """
    return float((1 + staleness) ** -exponent)

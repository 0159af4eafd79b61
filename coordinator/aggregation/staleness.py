"""Staleness factor s(τ): the discount of updates that were trained from an older version.

A factor of `coordinator/aggregation/coefficients.py`. Each function is 1 for a fresh update (τ = 0)
and never grows with τ.

Source: Xie, Koyejo, Gupta, "Asynchronous Federated Optimization" (FedAsync, 2019), section 5, for
`constant`, `polynomial` and `hinge`.
"""

from __future__ import annotations

import math

from common.config.config import StalenessName


def staleness_factor(
    staleness: int,
    exponent: float,
    name: StalenessName = "polynomial",
    threshold: int = 0,
) -> float:
    """Return s(τ) by the named function.

    | name          | s(τ)                                           |
    |---------------|------------------------------------------------|
    | `polynomial`  | (1 + τ)^(−a)                                   |
    | `constant`    | 1                                              |
    | `hinge`       | 1 if τ <= b, else 1 / (a (τ − b) + 1)          |
    | `exponential` | exp(−a τ)                                      |

    Args:
        staleness: τ, in versions.
        exponent: a; 0 switches the discount off.
        threshold: b of `hinge`, in versions.
    """
    match name:
        case "constant":
            return 1.0
        case "hinge":
            return 1 / (exponent * max(0, staleness - threshold) + 1)
        case "exponential":
            return math.exp(-exponent * staleness)
        case "polynomial":
            return float((1 + staleness) ** -exponent)

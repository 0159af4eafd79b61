"""Norm clip c: the factor that bounds how far one update can move the model.

A factor of `coordinator/aggregation/coefficients.py`. Admission computes it when an update arrives,
because the bound is the running median at that time.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

MIN_NORMS = 5  # accepted updates that the median needs to be a usable measure
MAX_NORM = 1e4  # bound until then: far above any training, far below an overflow of the version


def norm_limit(norms: Sequence[float], multiple: float) -> float | None:
    """Return `multiple` times the median of the norms of accepted updates.

    Return None while there are too few norms, or if the median is zero.
    """
    if len(norms) < MIN_NORMS:
        return None
    return multiple * median(norms) or None


def clip_factor(norm: float, limit: float) -> float:
    """Return c = min(1, limit / ‖Δ‖)."""
    return 1.0 if norm <= limit else limit / norm

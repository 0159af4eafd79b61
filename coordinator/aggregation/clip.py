"""Norm clip c: the factor that bounds how far one update can move the model.

A factor of `coordinator/aggregation/coefficients.py`. Admission computes it when an update arrives,
because the bound is the running median at that time.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from common.config.config import AggregationConfig, PrivacyConfig

MIN_NORMS = 5  # accepted updates that the median needs to be a usable measure
MAX_NORM = 1e4  # bound until then: far above any training, far below an overflow of the version


def norm_limit(norms: Sequence[float], multiple: float) -> float | None:
    """Return `multiple` times the median of the norms of accepted updates.

    Return None while there are too few norms, or if the median is zero.
    """
    if len(norms) < MIN_NORMS:
        return None
    return multiple * median(norms) or None


def clip_limit(
    norms: Sequence[float], aggregation: AggregationConfig, privacy: PrivacyConfig
) -> float | None:
    """Return the norm to which larger updates are scaled down; None while they are not.

    With differential privacy it is C: the median would tell of other clients' norms.
    """
    if privacy.enabled:
        return privacy.clip_norm
    return norm_limit(norms, aggregation.clip) if aggregation.over_norm == "clip" else None


def clip_factor(norm: float, limit: float) -> float:
    """Return c = min(1, limit / ‖Δ‖)."""
    return 1.0 if norm <= limit else limit / norm

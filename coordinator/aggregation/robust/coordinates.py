"""Coordinate-wise rules: trimmed mean and median of each number of a tensor over the updates.

Every update counts the same. Memory holds one tensor of all updates at a time.

Source: Yin, Chen, Ramchandran, Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal
Statistical Rates" (2018), definitions 1 and 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.protocol.tensors import Array


def trimmed_count(share: float, updates: int) -> int:
    """Return how many of the largest, and of the smallest, values are left out: ⌊β n⌋.

    At least one value is left, however few updates there are.
    """
    return min(int(share * updates + 1e-9), (updates - 1) // 2)  # 0.3 · 10 is below 3 in binary


def trimmed_mean(values: Sequence[Array], share: float) -> Array:
    """Return the mean of each number without its ⌊β n⌋ largest and smallest values.

    Args:
        values: The same tensor of the n updates.
        share: β, below 0.5.
    """
    cut = trimmed_count(share, len(values))
    return _mean_of_ranks(values, cut)


def coordinate_median(values: Sequence[Array]) -> Array:
    """Return the median of each number; of an even count, the mean of the two in the middle."""
    return _mean_of_ranks(values, (len(values) - 1) // 2)


def _mean_of_ranks(values: Sequence[Array], cut: int) -> Array:
    """Return the mean of each number without its `cut` largest and smallest values."""
    ordered = np.sort(np.stack(values), axis=0)[cut : len(values) - cut]
    mean: NDArray[np.float64] = ordered.mean(axis=0, dtype=np.float64)
    return mean.astype(np.float32)

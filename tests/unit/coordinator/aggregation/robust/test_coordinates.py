"""Trimmed mean and median, number by number."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator.aggregation.robust.coordinates import (
    coordinate_median,
    trimmed_count,
    trimmed_mean,
)


def rows(*values: list[float]) -> list[np.ndarray]:
    return [np.array(each, np.float32) for each in values]


def test_a_trimmed_mean_leaves_out_the_extremes_of_each_number() -> None:
    found = trimmed_mean(rows([1, 9], [2, 100], [3, 8], [4, 7], [1000, -50]), 0.2)
    assert found == pytest.approx([3, 8])
    assert found.dtype == np.float32


def test_without_a_share_nothing_is_left_out() -> None:
    assert trimmed_mean(rows([1], [2], [6]), 0) == pytest.approx([3])


@pytest.mark.parametrize(
    ("share", "updates", "count"),
    [(0.2, 5, 1), (0.3, 10, 3), (0.2, 4, 0), (0.4, 1, 0), (0.5, 4, 1)],
)
def test_the_number_of_values_left_out(share: float, updates: int, count: int) -> None:
    assert trimmed_count(share, updates) == count


def test_a_median_of_each_number() -> None:
    assert coordinate_median(rows([1, 5], [2, 6], [1000, -7])) == pytest.approx([2, 5])
    assert coordinate_median(rows([1], [3], [5], [1000])) == pytest.approx([4])

"""Centred clipping, on numbers that are easy to check."""

from __future__ import annotations

import numpy as np
import pytest

from common.protocol.tensors import Tensors
from coordinator.aggregation.robust.centered_clip import centered_clip
from coordinator.aggregation.robust.similarity import TensorReader


def tensors(value: float) -> Tensors:
    return {"A": np.array([value, 0], np.float32), "B": np.zeros((1, 1), np.float32)}


def readers(*values: float) -> list[TensorReader]:
    return [lambda value=value: iter(tensors(value).items()) for value in values]  # type: ignore[misc]


def clip(center: float, *values: float, weights: tuple[float, ...] = (), times: int = 1) -> float:
    found = centered_clip(
        tensors(center), readers(*values), weights or (1.0,) * len(values), None, times
    )
    return float(found["A"][0])


def test_a_far_update_moves_the_aggregate_by_the_median_distance_only() -> None:
    assert clip(0, 1, 3, 1000) == pytest.approx((1 + 3 + 3) / 3)


def test_a_given_radius_is_a_norm() -> None:
    found = centered_clip(tensors(0), readers(1, -7), (1.0, 1.0), 2.0, 1)
    assert found["A"].tolist() == [(1 - 2) / 2, 0]


def test_it_starts_from_the_centre() -> None:
    # distances from 2: 1, 1, 998; the median is 1
    assert clip(2, 1, 3, 1000) == pytest.approx(2 + (-1 + 1 + 1) / 3)


def test_an_update_counts_by_its_weight() -> None:
    assert clip(0, 1, 3, 1000, weights=(2, 1, 1)) == pytest.approx((2 * 1 + 3 + 3) / 4)


def test_another_iteration_measures_from_the_new_aggregate() -> None:
    once = clip(0, 1, 3, 1000)
    assert clip(0, 1, 3, 1000, times=2) == pytest.approx(clip(once, 1, 3, 1000))


def test_equal_updates_are_their_own_aggregate() -> None:
    assert clip(5, 5, 5, 5) == 5


def test_the_centre_stays_untouched() -> None:
    center = tensors(1)
    centered_clip(center, readers(2, 3), (1.0, 1.0), 1.0, 3)
    assert center["A"].tolist() == [1, 0]

"""Cosines of updates with the sum of the other clients' updates."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from coordinator.aggregation.cosine import cosines_with_others

SHAPES = ((3, 5), (7,), (2, 2))
Delta = list[np.ndarray]


def draw(seed: int) -> Delta:
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape).astype(np.float32) for shape in SHAPES]


def flat(delta: Delta) -> np.ndarray:
    return np.concatenate([tensor.ravel() for tensor in delta]).astype(np.float64)


def cosines(*owned: tuple[str, Delta]) -> list[float]:
    return cosines_with_others([name for name, _ in owned], [partial(iter, d) for _, d in owned])


def test_each_update_is_compared_with_the_sum_of_the_others() -> None:
    deltas = [draw(seed) for seed in range(4)]
    found = cosines(*((f"c{i}", delta) for i, delta in enumerate(deltas)))
    wide = [flat(delta) for delta in deltas]
    for i, value in enumerate(found):
        rest = sum(wide) - wide[i]
        norms = np.linalg.norm(wide[i]) * np.linalg.norm(rest)
        assert value == pytest.approx(float(wide[i] @ rest / norms), abs=1e-12)


def test_a_client_cannot_agree_with_itself() -> None:
    opposed = [-tensor for tensor in draw(1)]
    found = cosines(("a", draw(1)), ("b", opposed), ("b", opposed), ("b", opposed))
    assert found == pytest.approx([-1.0, -1.0, -1.0, -1.0])


def test_an_update_that_opposes_the_others_is_below_zero_whatever_its_size() -> None:
    opposed = [-1000 * tensor for tensor in draw(1)]
    found = cosines(("a", draw(1)), ("b", draw(1)), ("c", opposed))
    assert found[2] == pytest.approx(-1.0)


def test_an_update_without_others_or_without_a_direction_has_no_cosine() -> None:
    assert np.isnan(cosines(("a", draw(1)), ("a", draw(2)))).all()
    found = cosines(("a", draw(1)), ("b", [0 * tensor for tensor in draw(2)]))
    assert np.isnan(found).all()
    zero = [0 * tensor for tensor in draw(2)]
    found = cosines(("a", draw(1)), ("b", zero), ("c", draw(1)))
    assert (found[0], found[2]) == pytest.approx((1.0, 1.0)) and np.isnan(found[1])

"""Sum of the step, on numbers that are easy to check."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np

from common.protocol.tensors import Tensors
from coordinator.aggregation.rules.factor import aggregate_factors


def theta(a: float, b: float) -> Tensors:
    return {"A": np.array([a], np.float32), "B": np.array([[b]], np.float32)}


def test_deltas_are_added_with_their_coefficients_to_each_factor() -> None:
    found = aggregate_factors(theta(1, 10), [(0.5, theta(2, 4)), (0.25, theta(4, -8))])
    assert found == theta(1 + 1 + 1, 10 + 2 - 2)


def test_an_empty_buffer_changes_nothing_and_the_current_version_stays_untouched() -> None:
    current = theta(1, 10)
    assert aggregate_factors(current, []) == current
    aggregate_factors(current, [(1.0, theta(5, 5))])
    assert current == theta(1, 10)


class Delta(dict[str, np.ndarray]):
    """Delta that can be referenced weakly, unlike a plain dict."""


def test_deltas_are_consumed_one_at_a_time() -> None:
    # At most the delta of the previous iteration is alive when the next one is requested.
    issued: list[weakref.ref[Delta]] = []

    def stream() -> Iterator[tuple[float, Tensors]]:
        for _ in range(5):
            alive = sum(reference() is not None for reference in issued)
            assert alive <= 1, f"{alive} deltas are in memory"
            delta = Delta(theta(1, 2))
            issued.append(weakref.ref(delta))
            yield 1.0, delta
            del delta

    assert aggregate_factors(theta(0, 0), stream()) == theta(5, 10)

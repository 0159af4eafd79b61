"""Server optimizers, step by step on numbers that are easy to check."""

from __future__ import annotations

import numpy as np
import pytest

from common.config.config import OptimizerConfig, OptimizerName
from coordinator.aggregation.optimizers import (
    first_moment,
    optimize,
    optimizer_step,
    second_moment,
)


def one(value: float) -> np.ndarray:
    return np.array([value], np.float32)


def test_momentum_adds_whole_deltas_and_carries_a_share_of_the_last_step() -> None:
    m = first_moment("momentum", None, one(4), 0.5)
    assert m == one(4)
    m = first_moment("momentum", m, one(1), 0.5)
    assert m == one(0.5 * 4 + 1)
    assert optimizer_step(one(10), m, None, 2.0, 1e-3) == one(10 + 2 * 3)


@pytest.mark.parametrize("name", ["adagrad", "adam", "yogi"])
def test_adaptive_first_moments_are_means_that_begin_with_zero(name: OptimizerName) -> None:
    m = first_moment(name, None, one(4), 0.75)
    assert m == one(1)
    assert first_moment(name, m, one(8), 0.75) == one(0.75 * 1 + 0.25 * 8)


@pytest.mark.parametrize(
    ("name", "expected"),
    [  # v begins with τ² = 4, D = 4, β₂ = 0.75
        ("adagrad", 4 + 16),
        ("adam", 0.75 * 4 + 0.25 * 16),
        ("yogi", 4 + 0.25 * 16),
    ],
)
def test_second_moments_begin_with_the_square_of_tau(name: OptimizerName, expected: float) -> None:
    assert second_moment(name, None, one(4), 0.75, 2.0) == one(expected)


def test_yogi_falls_by_no_more_than_the_square_where_adam_falls_by_a_share() -> None:
    large = one(100)
    assert second_moment("adam", large, one(2), 0.5, 1.0) == one(52)
    assert second_moment("yogi", large, one(2), 0.5, 1.0) == one(100 - 0.5 * 4)


def test_an_adaptive_step_is_divided_by_the_root_of_the_second_moment() -> None:
    assert optimizer_step(one(1), one(-3), one(16), 2.0, 2.0) == one(1 - 2 * 3 / (4 + 2))


def test_results_are_single_precision_and_arguments_stay_untouched() -> None:
    delta, m, v = one(3), one(1), one(2)
    results = [
        first_moment("adam", m, delta, 0.9),
        second_moment("yogi", v, delta, 0.99, 1e-3),
        optimizer_step(one(0), m, v, 1e-3, 1e-3),
    ]
    assert {result.dtype for result in results} == {np.dtype(np.float32)}
    assert (delta, m, v) == (one(3), one(1), one(2))


def test_moments_are_kept_by_tensor_and_tensors_without_a_delta_stay() -> None:
    config = OptimizerConfig(name="adam", beta1=0.5, beta2=0.5, tau=1.0)
    current = {"A": one(5), "B": one(7)}
    first, state = optimize(config, 1.0, current, {}, {"B": one(2)})
    assert state == {"m/B": one(1), "v/B": one(0.5 + 2)}
    assert first == {"A": one(5), "B": pytest.approx(7 + 1 / (2.5**0.5 + 1))}
    _, state = optimize(config, 1.0, first, state, {"B": one(0)})
    assert state == {"m/B": one(0.5), "v/B": one(1.25)}


def test_without_an_optimizer_the_step_is_the_delta_at_the_servers_rate() -> None:
    assert optimize(OptimizerConfig(), 0.5, {"B": one(7)}, {}, {"B": one(2)}) == ({"B": one(8)}, {})

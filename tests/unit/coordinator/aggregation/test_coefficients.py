"""Coefficients: the product of weight, staleness, participation, clip and server learning rate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.config.config import AggregationConfig
from coordinator.aggregation.coefficients import compute_parts
from coordinator.core.state import BufferedUpdate, CoordinatorState
from tests.support.virtual_federation import make_plan, make_stats


def buffer(version: int, *bases: int) -> CoordinatorState:
    """Return a state with one update of each of several clients, equal but for their bases."""
    updates = tuple(
        BufferedUpdate(f"t{i}", 1, f"c{i}", "w", base, make_stats(), 1.0, 1, f"u{i}")
        for i, base in enumerate(bases)
    )
    return CoordinatorState(version=version, buffer=updates)


def coefficients(state: CoordinatorState, **aggregation: float) -> list[float]:
    plan = make_plan(aggregation=AggregationConfig.model_validate(aggregation))
    return [part.coefficient for part in compute_parts(plan, state)]


def test_the_coefficients_of_a_fresh_buffer_sum_to_one() -> None:
    assert coefficients(buffer(3, 3, 3)) == pytest.approx([0.5, 0.5])


def test_a_buffer_of_stale_updates_takes_a_smaller_step() -> None:
    # s(3) = 1/2, and s is not renormalised: the coefficients sum to a half.
    assert coefficients(buffer(3, 0, 0)) == pytest.approx([0.25, 0.25])


def test_clip_and_server_learning_rate_scale_the_coefficient() -> None:
    first, second = buffer(0, 0, 0).buffer
    state = CoordinatorState(buffer=(replace(first, clip=0.1), second))
    assert coefficients(state, server_lr=2.0) == pytest.approx([0.1, 1.0])


def test_the_coefficient_is_the_product_of_the_factors_that_the_part_names() -> None:
    state = buffer(3, 3, 0)
    parts = compute_parts(make_plan(aggregation=AggregationConfig(server_lr=0.5)), state)
    assert [part.staleness for part in parts] == [0, 3]
    for part in parts:
        product = part.weight * part.staleness_factor * part.participation_factor
        assert part.coefficient == pytest.approx(0.5 * product * part.update.clip)

"""Coefficients: the product of weight, staleness, participation, clip and server learning rate."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest

from common.config.config import AggregationConfig
from coordinator.aggregation.coefficients import compute_parts
from coordinator.core.state import BufferedUpdate, ClientState, CoordinatorState
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


def test_with_adaptive_steps_a_long_update_counts_for_less_within_bounds() -> None:
    """Both clients did not take part before, so that r is q̄ / qᵢ, between ½ and 2."""
    plan = make_plan(
        adaptive_steps=(2, 20), aggregation=AggregationConfig(contribution_mode="size")
    )
    first, second = buffer(0, 0, 0).buffer
    for steps, factors in ((5, (1.5, 0.75)), (1, (2.0, 0.55))):
        stats = first.stats.model_copy(update={"steps": steps})
        state = CoordinatorState(buffer=(replace(first, stats=stats), second))  # of 10 steps
        parts = compute_parts(plan, state)
        assert [part.participation_factor for part in parts] == pytest.approx(factors)


# scores that clients cannot inflate


def scored(*bases: int, **changed: object) -> CoordinatorState:
    scores: dict[str, float] = {"t0": 0.3, "t1": 0.1}
    return replace(buffer(0, *bases), scores=MappingProxyType(scores), **changed)  # type: ignore[arg-type]


SERVER = {"contribution_source": "server", "contribution_mode": "loss", "floor": 0.0}


def test_each_part_has_the_score_that_was_used() -> None:
    plan = make_plan(aggregation=AggregationConfig.model_validate(SERVER))
    parts = compute_parts(plan, scored(0, 0, 0))
    assert [p.score for p in parts] == pytest.approx([0.3, 0.1, 0.2])  # the last one: the median
    assert [p.weight for p in parts] == pytest.approx([0.5, 1 / 6, 1 / 3])


def test_with_one_update_the_last_scores_of_the_active_clients_count() -> None:
    plan = make_plan(aggregation=AggregationConfig.model_validate(SERVER))
    clients = {
        "c0": ClientState(last_stats=make_stats(), last_score=9.0),  # of an earlier update
        "c1": ClientState(last_stats=make_stats(), last_score=0.1),
        "c2": ClientState(last_stats=None, last_score=None),
    }
    (part,) = compute_parts(plan, scored(0, clients=MappingProxyType(clients)))
    assert (part.score, part.weight) == (pytest.approx(0.3), pytest.approx(2 * 0.3 / 0.4))
    unscored = replace(scored(0, clients=MappingProxyType(clients)), scores=MappingProxyType({}))
    (part,) = compute_parts(plan, unscored)
    assert (part.score, part.weight) == (pytest.approx(0.1), pytest.approx(1.0))

"""Admission: every kind of rejection, and its effect on the task."""

from __future__ import annotations

import numpy as np
import pytest

from common.config.config import AggregationConfig
from common.protocol.kinds import RejectionKind
from coordinator.aggregation.clip import MAX_NORM, MIN_NORMS
from coordinator.core.admission import AdmissionDecision, check_tensors, decide
from coordinator.core.events import Rejection
from coordinator.core.state import CoordinatorState, OpenTask, Plan
from tests.support.virtual_federation import make_plan, make_stats, make_update

TASK = OpenTask("t000001", "c0", 0, 1, bases=(0, 3), issued_at=0.0, lease_until=60.0)
PROBLEM = Rejection(RejectionKind.TENSORS, "tensor a is missing (1 of 2)")
ACCEPTED = AdmissionDecision()


def state(version: int = 4, norms: tuple[float, ...] = ()) -> CoordinatorState:
    return CoordinatorState(version=version, norms=norms).with_task(TASK)


def decision(
    plan: Plan | None = None, norms: tuple[float, ...] = (), **changed: object
) -> AdmissionDecision:
    return decide(plan or make_plan(), state(norms=norms), make_update(TASK, **changed))


def kind(found: AdmissionDecision) -> RejectionKind:
    assert found.rejection is not None and found.rejection.reason
    return found.rejection.kind


def test_an_update_without_the_loss_that_its_contribution_needs_is_rejected() -> None:
    unmeasured = make_stats().model_copy(update={"loss_before": None, "loss_after": None})
    assert decision(stats=unmeasured) == ACCEPTED
    plan = make_plan(aggregation=AggregationConfig(contribution_source="holdout"))
    assert decision(plan) == ACCEPTED
    assert kind(decision(plan, stats=unmeasured)) is RejectionKind.STATISTICS


def test_a_flawless_update_is_accepted_unclipped() -> None:
    assert decision() == ACCEPTED


def test_an_update_of_an_older_attempt_is_accepted() -> None:
    assert decision(attempt=1, base_version=0) == ACCEPTED


@pytest.mark.parametrize(
    "changed",
    [{"client_id": "ghost"}, {"site": "elsewhere"}, {"task_id": "t000002"}, {"client_id": "c1"}],
)
def test_an_update_from_a_stranger_closes_no_task(changed: dict[str, object]) -> None:
    found = decision(None, (), **changed)
    assert kind(found) is RejectionKind.IDENTITY
    assert not found.closes_task


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"phase": 1}, RejectionKind.ATTEMPT),
        ({"attempt": 3}, RejectionKind.ATTEMPT),
        ({"base_version": 0}, RejectionKind.ATTEMPT),
        ({"attempt": 1}, RejectionKind.ATTEMPT),
        ({"stats": make_stats(samples=0)}, RejectionKind.STATISTICS),
        ({"stats": make_stats().model_copy(update={"steps": 0})}, RejectionKind.STATISTICS),
        ({"stats": make_stats().model_copy(update={"num_tokens": 0})}, RejectionKind.STATISTICS),
        ({"problem": PROBLEM}, RejectionKind.TENSORS),
        ({"norm": 2 * MAX_NORM}, RejectionKind.NORM),
    ],
)
def test_a_flawed_update_closes_its_task_and_counts_as_a_strike(
    changed: dict[str, object], expected: RejectionKind
) -> None:
    found = decision(None, (), **changed)
    assert kind(found) is expected
    assert found.closes_task and found.counts_as_strike


def test_the_problem_that_ingest_found_is_the_reason() -> None:
    assert decision(problem=PROBLEM).rejection == PROBLEM


def test_staleness_at_the_limit_is_accepted_and_over_it_rejected_without_a_strike() -> None:
    old = make_update(TASK, attempt=1, base_version=0)
    assert decide(make_plan(max_staleness=4), state(4), old) == ACCEPTED
    late = decide(make_plan(max_staleness=4), state(5), old)
    assert kind(late) is RejectionKind.STALE
    assert late.closes_task and not late.counts_as_strike


def test_a_large_norm_is_clipped_at_one_and_a_half_times_the_running_median() -> None:
    norms = (1.0, 2.0, 2.0, 2.0, 9.0)
    assert decision(norms=norms, norm=3.0) == ACCEPTED
    assert decision(norms=norms, norm=6.0) == AdmissionDecision(clip=0.5)


def test_a_large_norm_is_rejected_if_the_plan_says_so() -> None:
    plan = make_plan(aggregation=AggregationConfig(over_norm="reject"))
    assert kind(decision(plan, norms=(2.0,) * 5, norm=6.0)) is RejectionKind.NORM
    assert decision(plan, norms=(2.0,) * 5, norm=3.0) == ACCEPTED


def test_the_running_median_does_not_bound_norms_before_the_fifth_update() -> None:
    assert decision(norms=(1.0,) * (MIN_NORMS - 1), norm=6.0) == ACCEPTED


def test_a_median_of_zero_clips_nothing() -> None:
    # Otherwise a few empty updates would scale every later one to zero.
    assert decision(norms=(0.0,) * 5, norm=1.0) == ACCEPTED


def tensors(**changed: np.ndarray) -> dict[str, np.ndarray]:
    return {"a": np.ones((2, 3), np.float32), "b": np.full(1, 2, np.float32), **changed}


def test_the_norm_is_over_all_tensors() -> None:
    norm, problem = check_tensors(tensors())
    assert (norm, problem) == (pytest.approx(10**0.5), None)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_tensors_that_are_not_finite_are_rejected(value: float) -> None:
    norm, problem = check_tensors(tensors(b=np.full(1, value, np.float32)))
    assert norm == 0.0 and problem is not None
    assert problem.kind is RejectionKind.NOT_FINITE and "not finite" in problem.reason

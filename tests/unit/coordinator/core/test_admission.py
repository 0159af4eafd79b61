"""Every reason for which an update does not count, and what a rejection settles."""

from __future__ import annotations

import numpy as np
import pytest

from common.config.config import AggregationConfig
from coordinator.core.admission import MAX_NORM, MIN_NORMS, AdmissionDecision, check_tensors, decide
from coordinator.core.state import CoordinatorState, OpenTask, Plan
from tests.support.virtual_federation import candidate, plan, stats

TASK = OpenTask("t000001", "c0", 0, 1, bases=(0, 3), issued_at=0.0, lease_until=60.0)
MANIFEST = {"a": (2, 3), "b": (1,)}


def state(version: int = 4, norms: tuple[float, ...] = ()) -> CoordinatorState:
    return CoordinatorState(version=version, norms=norms).with_task(TASK)


def verdict(
    of: Plan | None = None, norms: tuple[float, ...] = (), **changed: object
) -> AdmissionDecision:
    return decide(of or plan(), state(norms=norms), candidate(TASK, **changed))  # type: ignore[arg-type]


def test_a_flawless_update_is_accepted_whole() -> None:
    assert verdict() == AdmissionDecision()


def test_an_update_of_an_older_attempt_is_accepted() -> None:
    assert verdict(attempt=1, base_version=0) == AdmissionDecision()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"client_id": "ghost"}, "unknown client ghost"),
        ({"site": "elsewhere"}, "site elsewhere may not speak for c0"),
        ({"task_id": "t000002"}, "task t000002 was never issued"),
        ({"client_id": "c1"}, "task t000001 was issued to another client"),
    ],
)
def test_a_stranger_settles_nothing(changed: dict[str, object], reason: str) -> None:
    assert verdict(**changed) == AdmissionDecision(reason, binding=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"phase": 1}, "phase 1, the task is of phase 0"),
        ({"attempt": 3}, "attempt 3 was never issued"),
        ({"base_version": 0}, "base version 0, attempt 2 had 3"),
        ({"attempt": 1}, "base version 3, attempt 1 had 0"),
        ({"problem": "tensor a is missing (1 of 2)"}, "tensor a is missing (1 of 2)"),
        ({"norm": 2 * MAX_NORM}, "update norm 2e+04 is over the bound of 1e+04"),
        ({"stats": stats(samples=0)}, "statistics claim no samples, no tokens or no steps"),
        (
            {"stats": stats().model_copy(update={"steps": 0})},
            "statistics claim no samples, no tokens or no steps",
        ),
    ],
)
def test_a_flawed_update_settles_its_task(changed: dict[str, object], reason: str) -> None:
    assert verdict(**changed) == AdmissionDecision(reason)  # type: ignore[arg-type]


def test_staleness_at_the_limit_is_accepted_and_over_it_is_not() -> None:
    assert decide(plan(max_staleness=4), state(4), candidate(TASK, attempt=1, base_version=0)) == (
        AdmissionDecision()
    )
    late = decide(plan(max_staleness=4), state(5), candidate(TASK, attempt=1, base_version=0))
    assert late == AdmissionDecision("staleness 5 is over the limit of 4", strikes=False)


def test_a_large_norm_is_clipped_at_one_and_a_half_times_the_running_median() -> None:
    norms = (1.0, 2.0, 2.0, 2.0, 9.0)
    assert verdict(norms=norms, norm=3.0) == AdmissionDecision()
    assert verdict(norms=norms, norm=6.0) == AdmissionDecision(clip=0.5)


def test_a_large_norm_is_rejected_where_that_is_the_rule() -> None:
    of = plan(aggregation=AggregationConfig(over_norm="reject"))
    assert verdict(of, norms=(2.0,) * 5, norm=6.0) == AdmissionDecision(
        "update norm 6 is over the bound of 3"
    )


def test_the_running_median_means_nothing_before_it_has_seen_five_updates() -> None:
    assert verdict(norms=(1.0,) * (MIN_NORMS - 1), norm=6.0) == AdmissionDecision()


def test_a_median_of_zero_clips_nothing() -> None:
    # Or a few empty updates would set every later one to nothing.
    assert verdict(norms=(0.0,) * 5, norm=1.0) == AdmissionDecision()


def tensors(**changed: np.ndarray) -> dict[str, np.ndarray]:
    return {"a": np.ones((2, 3), np.float32), "b": np.full(1, 2, np.float32), **changed}


def test_the_norm_is_over_all_tensors() -> None:
    norm, problem = check_tensors(tensors(), MANIFEST)
    assert (norm, problem) == (pytest.approx(10**0.5), "")


@pytest.mark.parametrize(
    ("delta", "problem"),
    [
        ({"a": np.ones((2, 3), np.float32)}, "tensor b is missing (1 of 2)"),
        (tensors(c=np.ones(1, np.float32)), "1 tensors are not of this adapter"),
        (tensors(a=np.ones((3, 2), np.float32)), "tensor a has shape (3, 2), not (2, 3)"),
        (tensors(b=np.full(1, np.nan, np.float32)), "the update holds values that are not finite"),
        (tensors(b=np.full(1, -np.inf, np.float32)), "the update holds values that are not finite"),
    ],
)
def test_tensors_that_are_not_the_adapters_are_named(
    delta: dict[str, np.ndarray], problem: str
) -> None:
    assert check_tensors(delta, MANIFEST) == (0.0, problem)

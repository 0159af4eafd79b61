"""Retention: the choice of the versions that stay on the disk."""

from __future__ import annotations

from random import Random

import pytest

from common.evaluation.federated import FederatedEvaluation
from common.evaluation.sums import EvaluationSums
from common.protocol.versions import UpdateSummary, VersionSummary
from coordinator.core.state import Plan
from coordinator.storage.retention import RunningLosses, federated_losses, versions_to_keep
from tests.support.coordinator_records import update_summary, version_summary
from tests.support.virtual_federation import make_plan


def summaries(count: int, *updates: UpdateSummary) -> list[VersionSummary]:
    """Return the summaries of `count` versions; the newest one has the updates."""
    return [
        version_summary(version, 0.0, *(updates if version == count - 1 else ()))
        for version in range(count)
    ]


def test_the_federated_loss_is_weighted_by_samples_and_by_the_version_measured() -> None:
    found = federated_losses(
        summaries(2, update_summary(0, 4.0, 1), update_summary(0, 2.0, 3), update_summary(1, 9.0))
    )
    assert found == {0: pytest.approx(2.5), 1: 9.0}


def running(plan: Plan, found: list[VersionSummary]) -> RunningLosses:
    losses = RunningLosses(plan)
    for summary in found:
        losses.add(summary)
    return losses


def keep(
    plan: Plan,
    found: list[VersionSummary],
    newest: int,
    in_use: set[int] | frozenset[int] = frozenset(),
    evaluations: tuple[FederatedEvaluation, ...] = (),
) -> set[int]:
    return versions_to_keep(plan, len(found) - 1, newest, in_use, running(plan, found), evaluations)


def test_the_best_version_is_the_one_with_the_lowest_loss_of_its_phase() -> None:
    plan = make_plan(versions=(2, 4))
    measured = summaries(
        6,
        update_summary(0, 0.1),
        update_summary(2, 3.0),
        update_summary(3, 2.0),
        update_summary(4, 2.0),
    )
    assert running(plan, measured).best_version(1) == 3
    assert running(plan, summaries(3)).best_version(0) is None


def test_losses_that_can_no_longer_change_are_forgotten_but_for_the_best() -> None:
    plan = make_plan(versions=(10, 500), max_staleness=5)
    random = Random(3)
    found = [version_summary(0)]
    for version in range(1, 500):
        bases = [max(0, version - 1 - random.randrange(6)) for _ in range(2)]
        updates = [update_summary(base, round(random.uniform(1, 3), 1)) for base in bases]
        found.append(version_summary(version, 0.0, *updates))
    losses = running(plan, found)
    assert len(losses._total) <= 7
    own = {v: loss for v, loss in federated_losses(found).items() if plan.phase_of(v) == 1}
    assert losses.best_version(1) == min(own, key=lambda v: (own[v], v))


def test_version_zero_the_newest_phase_ends_the_best_and_those_in_use_stay() -> None:
    plan = make_plan(versions=(3, 20))
    measured = summaries(15, update_summary(7, 1.0), update_summary(9, 2.0))
    assert keep(plan, measured, newest=2, in_use={11}) == {0, 3, 7, 11, 13, 14, 23}


def test_the_current_version_always_stays() -> None:
    assert 0 in keep(make_plan(), summaries(1), newest=1)
    assert keep(make_plan(versions=9), summaries(6), newest=1) == {0, 5, 9}


def evaluation(version: int, phase: int, **losses: float) -> FederatedEvaluation:
    sums = {
        client: EvaluationSums(rows=1, loss=10 * loss, tokens=10) for client, loss in losses.items()
    }
    return FederatedEvaluation(version, phase, "sft", sums)


def test_evaluations_by_clients_decide_before_the_losses_that_they_claim() -> None:
    plan = make_plan(versions=(2, 9))
    claimed = summaries(11, update_summary(3, 0.1))
    found = (evaluation(0, 0, a=0.1), evaluation(2, 1, a=3.0))
    assert 3 not in keep(plan, claimed, 1, evaluations=found)
    assert 3 in keep(plan, claimed, 1, evaluations=found[:1])  # of another phase


def test_evaluated_versions_of_the_newest_phase_stay() -> None:
    plan = make_plan(versions=(3, 20))
    found = (evaluation(1, 0, a=1.0), evaluation(5, 1, a=1.0), evaluation(9, 1, a=2.0))
    assert keep(plan, summaries(15), 2, evaluations=found) == {0, 3, 5, 9, 13, 14, 23}

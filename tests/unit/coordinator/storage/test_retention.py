"""Which versions stay."""

from __future__ import annotations

import pytest

from common.protocol.updates import ContributionStats
from common.protocol.versions import UpdateSummary, VersionSummary
from coordinator.storage.retention import best_version, federated_losses, versions_to_keep
from tests.support.virtual_federation import plan


def update(base: int, loss: float, samples: int = 1) -> UpdateSummary:
    return UpdateSummary(
        task_id="t", client_id="c", worker_id="w", base_version=base, staleness=0, score=1.0,
        weight=1.0, staleness_factor=1.0, participation_factor=1.0, clip=1.0, coefficient=1.0,
        nbytes=1,
        stats=ContributionStats(
            num_samples=samples, num_tokens=1, steps=1, avg_loss=1.0, loss_before=loss,
            loss_after=1.0, delta_norm=1.0, train_seconds=1.0,
        ),
    )  # fmt: skip


def summaries(count: int, *updates: UpdateSummary) -> list[VersionSummary]:
    return [
        VersionSummary(
            version=v, phase=0, at=0.0, sha256="0" * 64, nbytes=1,
            updates=updates if v == count - 1 else (),
        )
        for v in range(count)
    ]  # fmt: skip


def test_the_federated_loss_is_weighted_by_samples_and_by_the_version_measured() -> None:
    found = federated_losses(summaries(2, update(0, 4.0, 1), update(0, 2.0, 3), update(1, 9.0)))
    assert found == {0: pytest.approx(2.5), 1: 9.0}


def test_the_best_version_is_the_one_with_the_lowest_loss_of_its_phase() -> None:
    of = plan(versions=(2, 4))
    measured = summaries(6, update(0, 0.1), update(2, 3.0), update(3, 2.0), update(4, 2.0))
    assert best_version(of, measured) == 3
    assert best_version(of, summaries(3)) is None


def test_the_newest_the_first_phase_ends_the_best_and_those_in_use_stay() -> None:
    of = plan(versions=(3, 20))
    measured = summaries(15, update(7, 1.0), update(9, 2.0))
    assert versions_to_keep(of, measured, newest=2, in_use={11}) == {0, 3, 7, 11, 13, 14, 23}


def test_the_current_version_always_stays() -> None:
    assert 0 in versions_to_keep(plan(), summaries(1), newest=1, in_use=())
    assert versions_to_keep(plan(versions=9), summaries(6), newest=1, in_use=()) == {0, 5, 9}

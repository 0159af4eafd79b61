"""Recovery of a state; `tests/properties/` compares it in any order of events and crashes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.core.events import Action, CommitVersion, IssueEvaluation, IssueTask
from coordinator.core.state import CoordinatorState, OpenTask, Plan
from coordinator.storage.journal import Journal
from coordinator.storage.recovery import recover
from tests.properties.core_run import durable
from tests.support.coordinator_records import version_summary
from tests.support.virtual_federation import Federation, OnStep, Worker, make_plan


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal.create(tmp_path / "run.db", {})
    journal.put_version(version_summary(0))
    journal.take_over()
    yield journal
    journal.close()


def record_and_compare(journal: Journal, plan: Plan) -> OnStep:
    """Return a callback that journals a step, recovers the state, and compares it."""

    def on_step(
        before: CoordinatorState, after: CoordinatorState, actions: tuple[Action, ...], now: float
    ) -> None:
        if actions or before.clients is not after.clients:
            issued = [a.task.task_id for a in actions if isinstance(a, IssueTask)]
            issued += [a.evaluation.task_id for a in actions if isinstance(a, IssueEvaluation)]
            frames = dict.fromkeys(issued, b"frame")
            commits = [a.version for a in actions if isinstance(a, CommitVersion)]
            summaries = {version: version_summary(version, now) for version in commits}
            journal.write(before, after, actions, now, frames=frames, summaries=summaries)
        found = recover(plan, journal, now, 0.0)
        assert durable(plan, found) == durable(plan, after)
        # Sums over clients must come out the same bit for bit, so their order counts.
        assert list(found.clients) == list(after.clients)
        assert list(found.tasks) == list(after.tasks)

    return on_step


def test_strikes_are_recovered(journal: Journal) -> None:
    plan = make_plan(2, buffer_size=1)
    refusing = [Worker("w0", refuses=True)]
    fed = Federation(plan, refusing, on_step=record_and_compare(journal, plan)).run()
    assert fed.finished is not None and fed.finished.failed
    assert recover(plan, journal, 0.0, 0.0).client("c1").quarantined


def test_recovered_tasks_get_a_new_lease(journal: Journal) -> None:
    task = OpenTask("t000001", "c0", 0, 1, (0,), 1.0, 61.0)
    empty = CoordinatorState()
    frames = {task.task_id: b"frame"}
    journal.write(empty, empty, (IssueTask(task, "local"),), 1.0, frames=frames, summaries={})
    recovered = recover(make_plan(2), journal, 500.0, 60.0)
    assert recovered.tasks[task.task_id].lease_until == 560.0


def test_a_task_from_the_future_counts_as_issued_now_because_the_clock_was_set_back(
    journal: Journal,
) -> None:
    task = OpenTask("t000001", "c0", 0, 1, (0,), 9000.0, 9060.0)
    actions, empty = (IssueTask(task, "local"),), CoordinatorState()
    journal.write(empty, empty, actions, 9000.0, frames={"t000001": b"frame"}, summaries={})
    recovered = recover(make_plan(2), journal, 500.0, 60.0)
    assert recovered.tasks["t000001"].issued_at == recovered.round_at == 500.0

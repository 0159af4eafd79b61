"""Commands of operators: decisions of the core, and rows of the journal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from common.protocol.commands import Command, CommandName, CommandReply
from common.protocol.kinds import EventKind, RejectionKind
from common.protocol.versions import VersionSummary
from coordinator.core import machine
from coordinator.core.events import (
    CloseEvaluation,
    CloseTask,
    CommandReceived,
    CommitVersion,
    FinishRun,
    HeartbeatsRead,
    IssueEvaluation,
    IssueTask,
    LogEvent,
    OpenRound,
    ReplyToCommand,
    Tick,
    WorkerSignal,
)
from coordinator.core.state import Client, CoordinatorState
from coordinator.core.transition import Transition
from coordinator.storage.journal import Journal
from coordinator.storage.recovery import recover
from tests.support.virtual_federation import make_plan, make_update

PLAN = make_plan(3, buffer_size=2, concurrency=2, lease_s=60)


def command(
    state: CoordinatorState,
    action: CommandName,
    target: str = "",
    number: int = 1,
    now: float = 1.0,
) -> Transition:
    sent = Command(command_id=f"c{number}", action=action, target=target, by="ann@desk")
    return machine.step(PLAN, state, CommandReceived(sent), now)


def alive(state: CoordinatorState, now: float = 0.0) -> Transition:
    return machine.step(PLAN, state, HeartbeatsRead((WorkerSignal("local", False, None),) * 3), now)


def answer(state: CoordinatorState, now: float = 2.0) -> Transition:
    """Return the transition after the update of the oldest open task."""
    return machine.step(PLAN, state, make_update(next(iter(state.tasks.values()))), now)


def reply(done: Transition) -> ReplyToCommand:
    return next(action for action in done.actions if isinstance(action, ReplyToCommand))


def issued(done: Transition) -> list[str]:
    return [action.task.client_id for action in done.actions if isinstance(action, IssueTask)]


def test_a_paused_run_accepts_updates_and_issues_nothing() -> None:
    paused = command(alive(CoordinatorState()).state, "pause")
    assert reply(paused).paused is True and not reply(paused).refused
    (entry,) = [a for a in paused.actions if isinstance(a, LogEvent)]
    assert entry.kind is EventKind.COMMAND and "ann@desk" in entry.text
    state = answer(paused.state).state
    done = answer(state)
    assert [a.version for a in done.actions if isinstance(a, CommitVersion)] == [1]
    assert not issued(done) and not issued(alive(done.state, 99.0))
    again = command(done.state, "resume", now=100.0)
    assert reply(again).paused is False and len(issued(again)) == 2


@pytest.mark.parametrize(
    ("action", "target"),
    [("resume", ""), ("kick", "c9"), ("pardon", "c0"), ("pardon", "c9"), ("reissue", "t9")],
)
def test_a_command_that_does_not_apply_is_refused_and_changes_nothing(
    action: CommandName, target: str
) -> None:
    state = alive(CoordinatorState()).state
    done = command(state, action, target)
    assert reply(done).refused and target in reply(done).refused
    assert done.state == state and len(done.actions) == 1


def test_a_drain_waits_for_the_open_tasks_and_commits_them() -> None:
    drained = command(alive(CoordinatorState()).state, "drain")
    assert not [a for a in drained.actions if isinstance(a, FinishRun)]
    one = answer(drained.state)
    assert not issued(one) and not [a for a in one.actions if isinstance(a, FinishRun)]
    last = answer(one.state)
    assert [a.version for a in last.actions if isinstance(a, CommitVersion)] == [1]
    assert [a.reason for a in last.actions if isinstance(a, FinishRun)] == ["drained on request"]


def test_a_drain_issues_a_task_again_whose_worker_has_died() -> None:
    # Another worker of its site can finish the task, so that the drain ends.
    drained = command(alive(CoordinatorState()).state, "drain").state
    open_tasks = set(drained.tasks)
    later = next(iter(drained.tasks.values())).lease_until
    again = machine.step(PLAN, drained, Tick(), later)
    tasks = [action.task for action in again.actions if isinstance(action, IssueTask)]
    assert {task.task_id for task in tasks} == open_tasks, "these, and no new ones"
    assert all(task.attempt == 2 for task in tasks)
    assert not [action for action in again.actions if isinstance(action, FinishRun)]


def test_a_drain_does_not_wait_for_a_silent_site() -> None:
    state = alive(CoordinatorState()).state
    parked = {name: replace(task, parked=True) for name, task in state.tasks.items()}
    done = command(replace(state, tasks=parked), "drain")
    assert [a.complete for a in done.actions if isinstance(a, FinishRun)] == [False]


def test_a_drain_ends_once_the_last_open_task_is_found_to_wait_for_a_silent_site() -> None:
    drained = command(alive(CoordinatorState()).state, "drain").state
    silent = machine.step(PLAN, drained, HeartbeatsRead(()), 1.0).state
    later = next(iter(silent.tasks.values())).lease_until
    done = machine.step(PLAN, silent, Tick(), later)
    assert all(task.parked for task in done.state.tasks.values())
    assert [a.complete for a in done.actions if isinstance(a, FinishRun)] == [False]


def test_a_stop_commits_the_buffer_immediately() -> None:
    state = answer(alive(CoordinatorState()).state).state
    done = command(state, "stop")
    assert [a.version for a in done.actions if isinstance(a, CommitVersion)] == [1]
    assert [a.reason for a in done.actions if isinstance(a, FinishRun)] == ["stopped on request"]


def test_a_kicked_client_gets_no_more_tasks_until_it_is_pardoned() -> None:
    state = alive(CoordinatorState()).state
    name = next(iter(state.tasks.values())).client_id
    kicked = command(state, "kick", name)
    assert [a.rejection.kind for a in kicked.actions if isinstance(a, CloseTask)] == [
        RejectionKind.KICKED
    ]
    assert name not in issued(kicked) and kicked.state.client(name).quarantined
    assert reply(command(kicked.state, "kick", name)).refused
    pardoned = command(kicked.state, "pardon", name)
    assert not pardoned.state.client(name).quarantined


def test_the_last_client_is_not_kicked() -> None:
    state = alive(CoordinatorState()).state
    for number, name in enumerate(("c0", "c1")):
        state = command(state, "kick", name, number).state
    done = command(state, "kick", "c2", 9)
    assert reply(done).refused and done.state == state


@pytest.mark.parametrize("by", ["task", "client"])
def test_a_task_is_issued_again_by_command(by: str) -> None:
    state = alive(CoordinatorState()).state
    task = next(iter(state.tasks.values()))
    done = command(state, "reissue", task.task_id if by == "task" else task.client_id)
    again = [a.task for a in done.actions if isinstance(a, IssueTask)]
    assert [(t.task_id, t.attempt) for t in again] == [(task.task_id, 2)]


def test_the_journal_keeps_commands_and_the_pause(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "run.db", {})
    journal.take_over()
    journal.put_version(VersionSummary(version=0, phase=0, at=0.0, sha256="0" * 64, nbytes=1))
    state = CoordinatorState()
    for number, action in enumerate(("pause", "pause", "resume", "pause")):
        done = command(state, action, number=number)  # type: ignore[arg-type]
        kept = [a for a in done.actions if isinstance(a, ReplyToCommand | LogEvent)]
        journal.write(state, done.state, kept, 0.0, frames={}, summaries={})
        state = done.state
    assert journal.command_reply("c0") == CommandReply(command_id="c0", state="done")
    assert journal.command_reply("c1") == CommandReply(
        command_id="c1", state="refused", reason="the run is paused"
    )
    assert journal.command_reply("c7") is None
    assert recover(PLAN, journal, 0.0, 60.0).paused


# minimum of live clients, and evaluation on request


@pytest.mark.parametrize("target", ["", "0", "-1", "two", "1.5", "1000000000"])
def test_a_minimum_that_is_no_number_of_clients_is_refused(target: str) -> None:
    done = command(CoordinatorState(), "min-clients", target)
    assert reply(done).refused and done.state.min_clients is None


def test_a_minimum_takes_effect_at_once_and_is_in_the_feed() -> None:
    state = alive(CoordinatorState()).state
    done = command(state, "min-clients", "9")
    assert done.state.min_clients == 9 and not reply(done).refused
    kinds = [action.kind for action in done.actions if isinstance(action, LogEvent)]
    assert kinds == [EventKind.COMMAND, EventKind.WORKERS]
    assert issued(answer(done.state)) == []
    assert issued(command(answer(done.state).state, "min-clients", "1", number=2)) != []


def test_the_newest_minimum_survives_a_restart(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "run.db", {})
    journal.take_over()
    journal.put_version(VersionSummary(version=0, phase=0, at=0.0, sha256="0" * 64, nbytes=1))
    state = CoordinatorState()
    for number, target in enumerate(("3", "2", "none")):
        done = command(state, "min-clients", target, number=number)
        journal.write(state, done.state, done.actions, 1.0, frames={}, summaries={})
        state = done.state
    assert recover(PLAN, journal, 2.0, 0.0).min_clients == 2
    journal.close()


def test_an_evaluation_on_request_asks_for_the_newest_version_by_default() -> None:
    state = alive(CoordinatorState()).state
    for target, number in (("", 1), ("0", 2)):
        done = command(state, "evaluate", target, number=number)
        assert [a for a in done.actions if isinstance(a, OpenRound)] == [OpenRound(0, 0)]
        asked = [a.evaluation.client_id for a in done.actions if isinstance(a, IssueEvaluation)]
        assert asked == ["c2"]  # the others train
        assert [r.version for r in done.state.rounds] == [0]


def test_a_version_that_open_tasks_start_from_can_be_evaluated() -> None:
    state = answer(answer(alive(CoordinatorState()).state).state).state
    assert state.version == 1
    assert not reply(command(state, "evaluate", "0")).refused
    for task in state.tasks.values():
        state = state.with_task(replace(task, bases=(1,)))
    assert "1" in reply(command(state, "evaluate", "0")).refused


@pytest.mark.parametrize("target", ["7", "newest"])
def test_an_evaluation_of_no_version_is_refused(target: str) -> None:
    assert reply(command(alive(CoordinatorState()).state, "evaluate", target)).refused


def test_an_evaluation_that_nobody_would_answer_is_refused() -> None:
    live = alive(CoordinatorState()).state
    twice = command(live, "evaluate").state
    states = (
        CoordinatorState(),  # no heartbeat yet
        replace(live, paused=True),
        replace(live, draining=True),
        replace(live, min_clients=9),
        twice,
    )
    reasons = [reply(command(state, "evaluate", number=5)).refused for state in states]
    assert all(reasons) and len(set(reasons)) == len(states)


def test_a_kicked_client_has_its_evaluations_closed() -> None:
    state = command(alive(CoordinatorState()).state, "evaluate").state
    done = command(state, "kick", "c2", number=2)
    closed = [a for a in done.actions if isinstance(a, CloseEvaluation)]
    assert [(c.client_id, c.rejection.kind) for c in closed] == [("c2", RejectionKind.KICKED)]


def test_the_last_client_of_a_run_of_sites_only_may_be_kicked() -> None:
    plan = make_plan({})
    state = CoordinatorState().with_member(Client("ward", "ward", {"sft": 9}))
    sent = Command(command_id="c1", action="kick", target="ward", by="ann@desk")
    done = machine.step(plan, state, CommandReceived(sent), 1.0)
    assert not reply(done).refused
    assert not any(isinstance(action, FinishRun) for action in done.actions)

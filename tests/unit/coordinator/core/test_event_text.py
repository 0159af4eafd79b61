"""Feed entries: their kinds, and their ids for programs."""

from __future__ import annotations

import pytest

from common.protocol.kinds import EventKind, RejectionKind
from coordinator.core import machine
from coordinator.core.event_text import describe, to_event
from coordinator.core.events import (
    AcceptEvaluation,
    AcceptUpdate,
    Action,
    CloseRound,
    CloseTask,
    FinishRun,
    HeartbeatsRead,
    IssueTask,
    LogEvent,
    OpenRound,
    Rejection,
    StopRequested,
    WorkerSignal,
    log_event,
)
from coordinator.core.state import BufferedUpdate, CoordinatorState, OpenEvaluation, OpenTask
from tests.support.virtual_federation import make_plan, make_result, make_stats, make_update

TASK = OpenTask("t000001", "c0", 0, 1, (0,), 0.0, 60.0)
AGAIN = OpenTask("t000001", "c0", 0, 1, (0, 1), 0.0, 60.0)
UPDATE = BufferedUpdate("t000001", 1, "c0", "w0", 0, make_stats(), 1.0, 100, "u")
LATE = Rejection(RejectionKind.STALE, "too old")


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        (IssueTask(TASK, "local"), EventKind.ISSUED),
        (AcceptUpdate(UPDATE, 1.0), EventKind.ACCEPTED),
        (CloseTask("t000001", "c0", LATE), EventKind.CLOSED),
        (FinishRun(True, "the plan is complete"), EventKind.FINISHED),
        (FinishRun(False, "stopped on request"), EventKind.STOPPED),
    ],
)
def test_an_action_has_an_entry_of_its_kind(action: Action, kind: EventKind) -> None:
    entry = describe(action, 1, {})
    assert entry is not None and entry.kind is kind
    if not isinstance(action, FinishRun):
        assert dict(entry.refs) == {"task": "t000001", "client": "c0"}


@pytest.mark.parametrize(
    ("action", "level"),
    [
        (OpenRound(3, 0), "info"),
        (CloseRound(3, 0, answered=2), "info"),
        (CloseRound(3, 0, ("c1",), 1), "warning"),
    ],
)
def test_a_round_of_evaluation_has_an_entry_of_its_version(action: Action, level: str) -> None:
    entry = describe(action, 5, {})
    assert entry is not None and (entry.kind, entry.level) == (EventKind.EVALUATION, level)
    assert dict(entry.refs)["version"] == 3 and dict(entry.refs)["phase"] == 0


def test_an_answer_has_an_entry_unless_it_scores_an_update() -> None:
    version = OpenEvaluation("e000001", "c0", 3, 0, 0.0, 60.0)
    entry = describe(AcceptEvaluation(version, make_result(version).result), 5, {})
    assert entry is not None
    assert dict(entry.refs) == {"version": 3, "task": "e000001", "client": "c0"}
    score = OpenEvaluation("e000002", "c0", 3, 0, 0.0, 60.0, candidate="t000001")
    assert describe(AcceptEvaluation(score, make_result(score).result), 5, {}) is None


@pytest.mark.parametrize(
    "action",
    [IssueTask(AGAIN, "local"), CloseTask("t000001", "c0", LATE, attempt=1)],
    ids=["a task that is issued again", "a task that a rejected update closed"],
)
def test_actions_for_which_the_machine_adds_an_entry_get_no_second_one(action: Action) -> None:
    assert describe(action, 1, {}) is None


def test_a_rejected_update_is_an_event_with_the_kind_and_the_reason() -> None:
    plan = make_plan()
    alive = HeartbeatsRead((WorkerSignal("local", False, None),))
    state = machine.step(plan, CoordinatorState(), alive, 0.0).state
    task = next(iter(state.tasks.values()))
    done = machine.step(plan, state, make_update(task, phase=7), 1.0)
    (entry,) = [a for a in done.actions if isinstance(a, LogEvent)][:1]
    (close,) = [a for a in done.actions if isinstance(a, CloseTask)]
    event = to_event(entry, 2.0)
    assert (event.kind, event.refs["rejection"]) == (EventKind.REJECTED, RejectionKind.ATTEMPT)
    assert event.refs["reason"] == close.rejection.reason
    assert event.text.endswith(close.rejection.reason)


@pytest.mark.parametrize("kind", EventKind)
def test_every_kind_and_a_text_of_any_length_fit_the_feeds_record(kind: EventKind) -> None:
    event = to_event(log_event("info", kind, "x" * 1000), 2.0)
    assert event.kind == kind.value and len(event.text) == 500


def test_a_run_that_is_stopped_ends_with_an_event_of_that_kind() -> None:
    done = machine.step(make_plan(), CoordinatorState(), StopRequested(), 1.0)
    entries = [describe(action, 0, {}) for action in done.actions]
    assert [entry.kind for entry in entries if entry] == [EventKind.STOPPED]

"""Rounds of federated evaluation: when they are due, who is asked, and how they end."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest

from common.config.config import PhaseConfig
from common.protocol.commands import Command
from common.protocol.kinds import EventKind, RejectionKind
from coordinator.core import machine
from coordinator.core.evaluations import ATTEMPTS, due_rounds, versions_needed
from coordinator.core.events import (
    CloseEvaluation,
    CloseRound,
    CommandReceived,
    FinishRun,
    HeartbeatsRead,
    IssueEvaluation,
    IssueTask,
    SiteRevoked,
    StopRequested,
    TaskRefused,
    Tick,
    WorkerSignal,
)
from coordinator.core.state import Client, CoordinatorState, EvaluationPlan, OpenEvaluation, Plan
from coordinator.core.transition import Transition
from tests.support.virtual_federation import Federation, Worker, make_plan, make_result, make_update


def evaluating_plan(clients: int = 2, every: int | None = None, **more: object) -> Plan:
    evaluation = EvaluationPlan(federated=True, every=every, deadline_s=100.0)
    return make_plan(clients, evaluation=evaluation, **more)  # type: ignore[arg-type]


def beat(plan: Plan, state: CoordinatorState, now: float = 0.0, workers: int = 2) -> Transition:
    signals = (WorkerSignal("local", False, None),) * workers
    return machine.step(plan, state, HeartbeatsRead(signals), now)


def asked(done: Transition) -> list[OpenEvaluation]:
    return [a.evaluation for a in done.actions if isinstance(a, IssueEvaluation)]


def trained(done: Transition) -> list[str]:
    return [a.task.client_id for a in done.actions if isinstance(a, IssueTask)]


def closed(done: Transition) -> list[CloseEvaluation]:
    return [a for a in done.actions if isinstance(a, CloseEvaluation)]


def ended(done: Transition) -> list[CloseRound]:
    return [a for a in done.actions if isinstance(a, CloseRound)]


# when


def test_version_zero_phase_ends_every_nth_and_the_last_version_are_due() -> None:
    plan = evaluating_plan(versions=(3, 4), every=2)
    live = beat(replace(plan, evaluation=EvaluationPlan()), CoordinatorState()).state
    due = {v: due_rounds(plan, replace(live, version=v), 0.0) for v in range(8)}
    assert due == {
        0: ((0, 0),),
        1: (),
        2: ((2, 0),),
        3: ((3, 0), (3, 1)),
        4: ((4, 1),),
        5: (),
        6: ((6, 1),),
        7: ((7, 1),),
    }
    assert due_rounds(plan, replace(live, version=3, evaluated=3), 0.0) == ()


def test_version_zero_waits_for_a_live_client() -> None:
    plan = evaluating_plan()
    assert due_rounds(plan, CoordinatorState(), 0.0) == ()
    assert machine.step(plan, CoordinatorState(), Tick(), 0.0).actions == ()


def test_no_round_is_due_unless_clients_evaluate() -> None:
    state = beat(make_plan(2), CoordinatorState()).state
    assert due_rounds(make_plan(2), state, 0.0) == ()


# who


def test_an_evaluation_precedes_its_clients_next_task_and_takes_a_place_of_its_site() -> None:
    plan = evaluating_plan(concurrency=4)
    done = beat(plan, CoordinatorState())
    assert [(e.client_id, e.version) for e in asked(done)] == [("c0", 0), ("c1", 0)]
    assert trained(done) == []
    done = machine.step(plan, done.state, make_result(asked(done)[0]), 1.0)
    assert trained(done) == ["c0"]


def test_an_evaluation_never_interrupts_a_task() -> None:
    plan = evaluating_plan(3, versions=4, buffer_size=1, every=1, concurrency=3)
    state = beat(replace(plan, evaluation=EvaluationPlan()), CoordinatorState(), workers=3).state
    first, *_ = state.tasks.values()
    done = machine.step(plan, state, make_update(first), 1.0)
    assert [(e.client_id, e.version) for e in asked(done)] == [(first.client_id, 1)]


def test_a_synchronous_round_is_issued_whole_behind_its_evaluations() -> None:
    plan = evaluating_plan(4, reissue="commit", concurrency=4)
    done = beat(plan, CoordinatorState(), workers=1)
    assert len(asked(done)) == len(trained(done)) == 4
    kinds = [type(a) for a in done.actions if isinstance(a, IssueEvaluation | IssueTask)]
    assert kinds == [IssueEvaluation] * 4 + [IssueTask] * 4


def test_a_client_that_joins_late_is_asked_in_open_rounds() -> None:
    plan = evaluating_plan(1)
    state = beat(plan, CoordinatorState(), workers=1).state
    state = state.with_member(Client("ward", "ward", {"sft": 10}))
    signals = (WorkerSignal("local", True, "e000001"), WorkerSignal("ward", False, None))
    done = machine.step(plan, state, HeartbeatsRead(signals), 5.0)
    assert [(e.task_id, e.client_id, e.version) for e in asked(done)] == [("e000002", "ward", 0)]


def test_clients_without_rows_of_the_phase_are_not_asked() -> None:
    clients = {"c0": Client("c0", "local", {"sft": 9}), "c1": Client("c1", "local", {"va": 9})}
    plan = evaluating_plan(clients)  # type: ignore[arg-type]
    assert [e.client_id for e in asked(beat(plan, CoordinatorState()))] == ["c0"]


def test_nothing_is_asked_while_the_run_is_paused_or_the_store_is_out_of_reach() -> None:
    plan = evaluating_plan()
    assert asked(beat(plan, CoordinatorState(paused=True))) == []
    state = machine.step(plan, CoordinatorState(), HeartbeatsRead((), store_up=False), 0.0).state
    assert asked(machine.step(plan, state, Tick(), 1.0)) == []


# how it ends


def test_a_round_ends_with_the_last_answer() -> None:
    plan = evaluating_plan()
    first = beat(plan, CoordinatorState())
    done = machine.step(plan, first.state, make_result(asked(first)[0]), 1.0)
    assert ended(done) == []
    done = machine.step(plan, done.state, make_result(asked(first)[1]), 2.0)
    assert ended(done) == [CloseRound(0, 0, (), 2)]
    assert done.state.rounds == ()


def test_a_round_does_not_wait_for_clients_that_are_no_longer_live() -> None:
    plan = evaluating_plan(1, lease_s=10.0)
    state = CoordinatorState().with_member(Client("ward", "ward", {"sft": 10}))
    both = (WorkerSignal("local", False, None), WorkerSignal("ward", False, None))
    first = machine.step(plan, state, HeartbeatsRead(both), 0.0)
    state = machine.step(plan, first.state, make_result(asked(first)[0]), 1.0).state
    done = beat(plan, state, 20.0)
    assert ended(done) == [CloseRound(0, 0, ("ward",), 1)]
    assert [(c.client_id, c.rejection.kind) for c in closed(done)] == [
        ("ward", RejectionKind.EXPIRED)
    ]


def test_a_round_ends_in_time_and_names_who_is_missing() -> None:
    plan = evaluating_plan()
    first = beat(plan, CoordinatorState())
    busy = (WorkerSignal("local", True, None),) * 2
    state = first.state
    for now in range(10, 100, 10):
        state = machine.step(plan, state, HeartbeatsRead(busy), float(now)).state
    done = machine.step(plan, state, HeartbeatsRead(busy), 100.0)
    assert ended(done) == [CloseRound(0, 0, ("c0", "c1"), 0)]
    assert len(closed(done)) == 2 and not done.state.evaluations


def test_a_pause_and_an_outage_of_the_store_do_not_count_against_the_deadline() -> None:
    plan = evaluating_plan()
    state = replace(beat(plan, CoordinatorState()).state, paused=True)
    assert ended(beat(plan, state, 500.0)) == []
    resume = CommandReceived(Command(command_id="k1", action="resume"))
    state = machine.step(plan, state, resume, 500.0).state
    state = machine.step(plan, state, HeartbeatsRead((), store_up=False), 550.0).state
    assert ended(machine.step(plan, state, Tick(), 900.0)) == []
    busy = HeartbeatsRead((WorkerSignal("local", True, None),) * 2)
    state = machine.step(plan, state, busy, 1000.0).state
    assert ended(machine.step(plan, state, busy, 1099.0)) == []
    assert len(ended(machine.step(plan, state, busy, 1100.0))) == 1


def test_an_evaluation_is_issued_again_when_its_lease_ends_and_given_up_after_some_attempts() -> (
    None
):
    plan = evaluating_plan(1, lease_s=10.0)
    done = beat(plan, CoordinatorState())
    for attempt in range(2, ATTEMPTS + 1):
        done = beat(plan, done.state, 10.0 * (attempt - 1))
        assert [(e.attempt, e.version) for e in asked(done)] == [(attempt, 0)]
    done = beat(plan, done.state, 10.0 * ATTEMPTS)
    assert [c.rejection.kind for c in closed(done)] == [RejectionKind.EXPIRED]


def test_a_heartbeat_renews_the_lease_of_an_evaluation() -> None:
    plan = evaluating_plan(1, lease_s=10.0)
    state = beat(plan, CoordinatorState(), workers=1).state
    signal = (WorkerSignal("local", True, "e000001"),)
    state = machine.step(plan, state, HeartbeatsRead(signal), 9.0).state
    assert asked(beat(plan, state, 18.0)) == []


def test_the_evaluations_of_a_revoked_site_are_closed() -> None:
    plan = evaluating_plan(1)
    state = CoordinatorState().with_member(Client("ward", "ward", {"sft": 10}))
    signals = (WorkerSignal("ward", False, None),)
    state = machine.step(plan, state, HeartbeatsRead(signals), 0.0).state
    done = machine.step(plan, state, SiteRevoked("ward"), 1.0)
    assert [c.rejection.kind for c in closed(done)] == [RejectionKind.REVOKED]


def test_the_end_of_a_phase_leaves_evaluations_open() -> None:
    plan = evaluating_plan(2, versions=(1, 1), buffer_size=1, concurrency=1)
    first = beat(plan, CoordinatorState())
    done = machine.step(plan, first.state, make_result(asked(first)[0]), 1.0)
    (task,) = done.state.tasks.values()
    done = machine.step(plan, done.state, make_update(task), 2.0)
    assert done.state.version == 1 and "e000002" in done.state.evaluations
    assert [(r.version, r.phase) for r in done.state.rounds] == [(0, 0), (1, 0), (1, 1)]


def test_the_run_is_complete_after_the_last_version_was_evaluated() -> None:
    plan = evaluating_plan(3, versions=2, buffer_size=2)
    fed = Federation(plan, [Worker(f"w{i}") for i in range(3)]).run()
    assert fed.finished == FinishRun(True, "the plan is complete")
    assert [(e.version, e.missing, e.answered) for e in fed.log.ended] == [(0, (), 3), (2, (), 3)]
    assert fed.now > fed.log.times[2]


def test_a_stop_does_not_wait_for_the_last_evaluation_and_the_next_start_makes_up_for_it() -> None:
    plan = evaluating_plan(1, versions=1, buffer_size=1, concurrency=1)
    plain = replace(plan, evaluation=EvaluationPlan())
    state = beat(plain, CoordinatorState()).state
    state = replace(machine.step(plain, state, Tick(), 0.5).state, stopping=True)
    (task,) = state.tasks.values()
    done = machine.step(plan, state, make_update(task), 1.0)
    assert [a.complete for a in done.actions if isinstance(a, FinishRun)] == [False]
    again = beat(plan, replace(done.state, stopping=False), 2.0)
    assert [(e.version, e.phase) for e in asked(again)] == [(1, 0)]
    stopped = machine.step(plan, again.state, StopRequested(), 3.0)
    assert [a.complete for a in stopped.actions if isinstance(a, FinishRun)] == [False]


# refusals


def refuse(done: Transition, plan: Plan, **changed: object) -> Transition:
    first = asked(done)[0]
    fields = {"attempt": 1, "client_id": first.client_id, "site": "local", "reason": "no memory"}
    event = TaskRefused(task_id=first.task_id, **{**fields, **changed})  # type: ignore[arg-type]
    return machine.step(plan, done.state, event, 1.0)


def test_a_refusal_is_no_strike_and_ends_the_evaluation_for_this_round() -> None:
    plan = evaluating_plan(1)
    done = refuse(beat(plan, CoordinatorState()), plan)
    assert [c.rejection.kind for c in closed(done)] == [RejectionKind.REFUSED]
    assert ended(done) == [CloseRound(0, 0, ("c0",), 0)]
    assert done.state.client("c0").strikes == 0 and asked(done) == []


def test_a_client_that_declines_is_never_asked_again() -> None:
    plan = evaluating_plan(2, every=1, versions=3, buffer_size=1)
    done = refuse(beat(plan, CoordinatorState()), plan, declines=True)
    assert done.state.declined == {"c0"}
    assert [c.rejection.kind for c in closed(done)] == [RejectionKind.DECLINED]
    workers = [Worker("a", declines=True), Worker("b", declines=True)]
    fed = Federation(plan, workers).run()
    assert fed.finished is not None and fed.finished.complete
    assert sorted(a.evaluation.client_id for a in fed.log.asked) == ["c0", "c1"]
    assert all(e.missing == () for e in fed.log.ended)


@pytest.mark.parametrize("changed", [{"client_id": "c1"}, {"attempt": 2}, {"site": "ward"}])
def test_a_refusal_of_anothers_evaluation_is_discarded(changed: dict[str, object]) -> None:
    plan = evaluating_plan()
    done = refuse(beat(plan, CoordinatorState()), plan, **changed)
    assert len(done.state.evaluations) == 2 and closed(done) == []


# versions


def test_the_versions_and_references_of_open_rounds_and_evaluations_are_needed() -> None:
    phases = (PhaseConfig(versions=2), PhaseConfig(objective="dpo", versions=9))
    plan = replace(evaluating_plan(), phases=phases)
    evaluation = OpenEvaluation("e000001", "c0", 5, 1, 0.0, 9.0)
    state = CoordinatorState(version=7, evaluations=MappingProxyType({"e000001": evaluation}))
    assert versions_needed(plan, state) == {5, 2}
    assert versions_needed(plan, CoordinatorState(version=7)) == set()


def test_the_feed_tells_of_a_client_that_refuses() -> None:
    plan = evaluating_plan()
    done = refuse(beat(plan, CoordinatorState()), plan)
    kinds = [a.kind for a in done.actions if hasattr(a, "kind")]
    assert kinds == [EventKind.REFUSED]

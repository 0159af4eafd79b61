"""Local steps by measured speed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.core import machine
from coordinator.core.events import AcceptUpdate, HeartbeatsRead, IssueTask, WorkerSignal
from coordinator.core.pace import Pace, assigned_steps, measure, typical
from coordinator.core.state import CoordinatorState, OpenTask, Plan
from tests.support.virtual_federation import make_plan, make_stats, make_update

LIMITS = (2, 20)


def test_a_pace_is_the_seconds_per_step_and_all_other_time() -> None:
    assert measure(1.0, 10, 4.0) == Pace(step_s=0.1, overhead_s=3.0)


def test_training_cannot_have_taken_longer_than_the_coordinator_waited() -> None:
    assert measure(1.0, 10, 0.5) == Pace(0.05, 0.0)
    assert measure(1.0, 10, -60.0) == Pace(0.0, 0.0)  # the clock was set back


def test_one_update_that_waited_for_a_broken_network_does_not_count() -> None:
    assert typical([Pace(1.0, 2.0), Pace(1.0, 1800.0), Pace(1.2, 3.0)]) == Pace(1.0, 3.0)
    assert typical([]) is None


@pytest.mark.parametrize(
    ("pace", "steps"),
    [
        (Pace(1.0, 2.0), 10),  # the client of median speed: 2 + 10 · 1 = 12
        (Pace(2.0, 2.0), 5),
        (Pace(0.5, 2.0), 20),
        (Pace(1.0, 7.4), 5),
        (Pace(10.0, 2.0), 2),  # limits
        (Pace(0.1, 2.0), 20),
        (Pace(1.0, 99.0), 2),
        (Pace(0.0, 0.0), 20),
    ],
)
def test_steps_take_each_client_the_same_time_within_limits(pace: Pace, steps: int) -> None:
    assert assigned_steps(pace, 12.0, 10, LIMITS) == steps


def test_a_client_that_was_not_measured_makes_the_usual_steps() -> None:
    assert assigned_steps(None, 12.0, 10, LIMITS) == 10
    assert assigned_steps(Pace(10.0, 2.0), None, 10, LIMITS) == 10


def adaptive_plan(clients: int = 3, versions: int = 9) -> Plan:
    plan = make_plan(clients, versions=versions, concurrency=clients, buffer_size=1)
    phases = tuple(replace_phase(phase) for phase in plan.phases)
    schedule = plan.schedule.model_copy(update={"adaptive_steps": LIMITS})
    return replace(plan, phases=phases, schedule=schedule)


def replace_phase(phase: object) -> object:
    return phase.model_copy(update={"local_steps": 10})  # type: ignore[attr-defined]


def begin(plan: Plan) -> CoordinatorState:
    signals = tuple(WorkerSignal("local", False, None) for _ in plan.clients)
    return machine.step(plan, CoordinatorState(), HeartbeatsRead(signals), 0.0).state


def answer(
    plan: Plan, state: CoordinatorState, client: str, at: float, **stats: object
) -> tuple[CoordinatorState, OpenTask]:
    """Answer the task of a client; return the state, and the task that follows."""
    (task,) = (each for each in state.tasks.values() if each.client_id == client)
    claimed = make_stats().model_copy(update=stats)
    done = machine.step(plan, state, make_update(task, stats=claimed), at)
    (issued,) = (action for action in done.actions if isinstance(action, IssueTask))
    return done.state, issued.task


def test_tasks_have_steps_by_the_speed_of_their_client() -> None:
    plan = adaptive_plan()
    state = begin(plan)
    assert {task.steps for task in state.tasks.values()} == {10}
    state, first = answer(plan, state, "c0", 12.0, train_seconds=10.0)
    assert first.steps == 10  # it is the only one that was measured
    state, fast = answer(plan, state, "c1", 7.0, train_seconds=5.0)  # 0.5 s a step
    assert fast.steps == 10  # the median of 7 and 12 s is the lower one
    state, slow = answer(plan, state, "c2", 22.0, train_seconds=20.0)  # 2 s a step
    assert slow.steps == 5  # 2 + 5 · 2 = 12 s, as the client of median speed takes for 10


def test_an_update_counts_with_the_steps_that_its_task_was_given() -> None:
    plan = adaptive_plan(1)
    state = begin(plan)
    (task,) = state.tasks.values()
    stats = make_stats().model_copy(update={"steps": 5000})
    done = machine.step(plan, state, make_update(task, stats=stats), 1.0)
    (accepted,) = (action for action in done.actions if isinstance(action, AcceptUpdate))
    assert accepted.update.stats.steps == 10


def test_a_task_that_is_issued_again_keeps_its_steps_and_an_old_attempt_is_not_measured() -> None:
    plan = adaptive_plan(1)
    state = begin(plan)
    (task,) = state.tasks.values()
    signals = (WorkerSignal("local", False, None),)
    again = machine.step(plan, state, HeartbeatsRead(signals), plan.schedule.lease_s).state
    (reissued,) = again.tasks.values()
    assert (reissued.attempt, reissued.steps) == (2, 10)
    done = machine.step(plan, again, make_update(task), 61.0)
    assert done.state.client("c0").paces == ()


def test_an_update_that_comes_too_late_is_measured_so_that_the_next_one_does_not() -> None:
    plan = adaptive_plan(2)
    plan = replace(plan, schedule=plan.schedule.model_copy(update={"max_staleness": 0}))
    state, _ = answer(plan, begin(plan), "c0", 12.0, train_seconds=10.0)
    state, task = answer(plan, state, "c1", 52.0, train_seconds=50.0)
    assert state.version == 1  # it was rejected
    assert state.client("c1").paces == (Pace(5.0, 2.0),)
    assert task.steps == 2


def test_paces_are_forgotten_with_the_phase() -> None:
    plan = adaptive_plan(1, versions=1)
    plan = replace(plan, phases=plan.phases * 2)
    state, task = answer(plan, begin(plan), "c0", 5.0)
    assert state.version == 1
    assert state.client("c0").paces == ()
    assert task.steps == 10

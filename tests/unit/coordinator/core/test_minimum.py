"""Minimum of live clients: below it nothing is issued or committed."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest

from common.protocol.kinds import EventKind
from coordinator.core import machine
from coordinator.core.events import (
    CommitVersion,
    EnrolmentRequested,
    FinishRun,
    HeartbeatsRead,
    IssueTask,
    LogEvent,
    StopRequested,
    Tick,
    WorkerSignal,
)
from coordinator.core.minimum import live_clients
from coordinator.core.state import Client, CoordinatorState, Plan
from coordinator.core.transition import Transition
from tests.support.virtual_federation import Federation, Worker, make_plan, make_update

SITES = ("clinic", "lab", "ward")


def site_plan(min_clients: int = 2, **schedule: object) -> Plan:
    """Return a plan of sites only."""
    settings: dict[str, object] = {"buffer_size": 1, "concurrency": 3, **schedule}
    return make_plan({}, min_clients=min_clients, **settings)  # type: ignore[arg-type]


def joined(*sites: str) -> CoordinatorState:
    state = CoordinatorState()
    for site in sites:
        state = state.with_member(Client(site, site, {"sft": 100}))
    return state


def beat(plan: Plan, state: CoordinatorState, now: float, *sites: str) -> Transition:
    signals = tuple(WorkerSignal(site, False, None) for site in sites)
    return machine.step(plan, state, HeartbeatsRead(signals), now)


def issued(done: Transition) -> list[str]:
    return [a.task.client_id for a in done.actions if isinstance(a, IssueTask)]


def notes(done: Transition) -> list[LogEvent]:
    return [a for a in done.actions if isinstance(a, LogEvent) and a.kind is EventKind.WORKERS]


def test_a_run_of_sites_only_waits_for_its_first_clients() -> None:
    plan = site_plan()
    done = beat(plan, CoordinatorState(), 0.0)
    assert not any(isinstance(a, FinishRun) for a in done.actions)
    (short,) = notes(done)
    assert (short.level, dict(short.refs)) == ("warning", {"live": 0, "minimum": 2})


def test_tasks_are_issued_once_the_minimum_of_clients_is_live() -> None:
    plan, state = site_plan(), joined(*SITES)
    done = beat(plan, state, 0.0, "clinic")
    assert issued(done) == [] and "lab" in notes(done)[0].text and "ward" in notes(done)[0].text
    done = beat(plan, done.state, 1.0, "clinic", "lab")
    assert issued(done) == ["clinic", "lab"]
    assert [note.level for note in notes(done)] == ["info"]
    assert notes(beat(plan, done.state, 2.0, "clinic", "lab")) == []


def test_a_client_is_live_for_a_lease_after_its_last_heartbeat() -> None:
    plan, state = site_plan(lease_s=60.0), joined(*SITES)
    state = beat(plan, state, 0.0, "clinic", "lab").state
    assert live_clients(plan, state, 60.0) == ["clinic", "lab"]
    assert live_clients(plan, state, 60.1) == []


def test_a_site_that_rests_is_not_live() -> None:
    plan, state = site_plan(), joined("clinic")
    signal = WorkerSignal("clinic", False, None, resting=True)
    state = machine.step(plan, state, HeartbeatsRead((signal,)), 0.0).state
    assert live_clients(plan, state, 0.0) == []


def test_who_was_live_counts_while_the_store_is_out_of_reach() -> None:
    plan, state = site_plan(lease_s=10.0), joined(*SITES)
    state = beat(plan, state, 0.0, "clinic", "lab").state
    state = machine.step(plan, state, HeartbeatsRead((), store_up=False), 5.0).state
    assert live_clients(plan, state, 100.0) == ["clinic", "lab"]


def buffered(plan: Plan) -> CoordinatorState:
    """Return a state below the minimum, with an update in the full buffer."""
    state = beat(plan, joined(*SITES), 0.0, "clinic", "lab").state
    state = beat(plan, state, 100.0, "clinic").state
    task = next(t for t in state.tasks.values() if t.client_id == "clinic")
    done = machine.step(plan, state, make_update(task, "clinic"), 101.0)
    assert not any(isinstance(a, CommitVersion | IssueTask) for a in done.actions)
    assert len(done.state.buffer) == 1
    return done.state


def test_an_update_waits_below_the_minimum_and_is_applied_above_it() -> None:
    plan = site_plan(flush_s=5.0)
    state = buffered(plan)
    assert not any(
        isinstance(a, CommitVersion) for a in machine.step(plan, state, Tick(), 110.0).actions
    )
    done = beat(plan, state, 111.0, "clinic", "ward")
    assert [a.version for a in done.actions if isinstance(a, CommitVersion)] == [1]


def test_a_stop_below_the_minimum_leaves_the_buffer_to_the_next_start() -> None:
    plan = site_plan()
    done = machine.step(plan, buffered(plan), StopRequested(), 102.0)
    (finish,) = [a for a in done.actions if isinstance(a, FinishRun)]
    assert not finish.complete and "1 update waits" in finish.reason
    assert len(done.state.buffer) == 1 and done.state.version == 0


def test_a_version_of_several_updates_waits_for_a_second_client() -> None:
    plan = site_plan(buffer_size=2, flush_s=5.0)
    state = beat(plan, joined("clinic", "lab"), 0.0, "clinic", "lab").state
    for number in (1, 2):  # the lab is slow
        task = next(t for t in state.tasks.values() if t.client_id == "clinic")
        done = machine.step(plan, state, make_update(task, "clinic"), float(number))
        state = done.state
    assert issued(done) == []  # a third update of the clinic would help nobody
    done = beat(plan, state, 20.0, "clinic", "lab")
    assert done.state.version == 0 and len(done.state.buffer) == 2
    lab = next(t for t in done.state.tasks.values() if t.client_id == "lab")
    done = machine.step(plan, done.state, make_update(lab, "lab"), 21.0)
    assert done.state.version == 1 and "clinic" in issued(done)


def test_a_minimum_of_one_commits_on_a_stop_without_any_live_worker() -> None:
    plan = make_plan(2, versions=3, buffer_size=2, concurrency=2)
    state = beat(plan, CoordinatorState(), 0.0, "local", "local").state
    state = machine.step(plan, state, make_update(state.tasks["t000001"]), 1.0).state
    none = MappingProxyType[str, int]({})
    done = machine.step(
        plan, replace(state, seen_at=none, workers_by_site=none), StopRequested(), 2.0
    )
    assert [a.version for a in done.actions if isinstance(a, CommitVersion)] == [1]


def test_no_task_is_issued_again_below_the_minimum_but_a_silent_site_parks_its_task() -> None:
    plan = site_plan(lease_s=10.0)
    state = beat(plan, joined(*SITES), 0.0, "clinic", "lab").state
    state = beat(plan, state, 15.0, "clinic").state
    done = beat(plan, state, 30.0, "clinic")
    assert issued(done) == []
    parked = {task.client_id: task.parked for task in done.state.tasks.values()}
    assert parked == {"clinic": False, "lab": True}
    assert issued(beat(plan, done.state, 31.0, "clinic", "lab")) == ["clinic", "lab"]


def test_a_drain_below_the_minimum_does_not_wait_for_lost_tasks() -> None:
    plan = site_plan(lease_s=10.0)
    state = replace(beat(plan, joined(*SITES), 0.0, "clinic", "lab").state, draining=True)
    state = beat(plan, state, 15.0, "clinic").state
    done = beat(plan, state, 30.0, "clinic")
    done = beat(plan, done.state, 31.0, "clinic")
    assert any(isinstance(a, FinishRun) for a in done.actions)


def test_a_run_of_sites_only_outlives_the_quarantine_of_all_its_clients() -> None:
    plan, state = site_plan(min_clients=1), joined("clinic")
    state = state.with_client("clinic", replace(state.client("clinic"), strikes=3))
    done = beat(plan, state, 0.0, "clinic")
    assert not any(isinstance(a, FinishRun) for a in done.actions)
    request = EnrolmentRequested("lab", "lab", {"sft": 10}, max_clients=1, max_rows=10)
    state = machine.step(plan, done.state, request, 1.0).state
    assert issued(beat(plan, state, 2.0, "lab")) == ["lab"]


@pytest.mark.parametrize("away", [(5.0, 300.0), (40.0, 900.0)])
def test_a_federation_of_sites_pauses_below_the_minimum_and_completes(
    away: tuple[float, float],
) -> None:
    plan = site_plan(lease_s=20.0)
    workers = [Worker("a", site="clinic"), Worker("b", site="lab", away=[away])]
    fed = Federation(plan, workers)
    fed.state = joined("clinic", "lab")
    fed.run()
    assert fed.finished == FinishRun(True, "the plan is complete")
    span = (away[0] + 21.0, away[1])
    assert not [at for at in fed.log.times.values() if span[0] < at < span[1]]

"""State machine in virtual time: modes, leases, quarantine, and no update counted twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import MappingProxyType

import pytest

from common.config.config import PhaseConfig
from common.protocol.fields import RowKind
from common.protocol.kinds import EventKind, RejectionKind
from coordinator.core import machine
from coordinator.core.events import (
    AcceptUpdate,
    CloseTask,
    CommitVersion,
    DiscardMessage,
    DuplicateArrived,
    FinishRun,
    HeartbeatsRead,
    IssueTask,
    LogEvent,
    Rejection,
    RepeatReceipt,
    StopRequested,
    TaskRefused,
    Tick,
    WorkerSignal,
)
from coordinator.core.state import Client, ClientState, CoordinatorState, OpenTask, Plan
from coordinator.core.transition import Transition
from tests.support.virtual_federation import Federation, Worker, make_plan, make_update

IDLE = WorkerSignal("local", False, None)


def begin(
    plan: Plan, workers: int = 4, now: float = 0.0
) -> tuple[CoordinatorState, list[OpenTask]]:
    """Return the state after the first tasks were issued, and those tasks."""
    done = machine.step(plan, CoordinatorState(), HeartbeatsRead((IDLE,) * workers), now)
    return done.state, issued(done)


def issued(done: Transition) -> list[OpenTask]:
    return [action.task for action in done.actions if isinstance(action, IssueTask)]


def kinds(done: Transition) -> list[type]:
    return [type(action) for action in done.actions]


def workers(count: int = 4, **more: object) -> list[Worker]:
    return [Worker(f"w{i}", **more) for i in range(count)]  # type: ignore[arg-type]


# the modes


def test_fedasync_commits_every_update_immediately() -> None:
    fed = Federation(make_plan(versions=5, buffer_size=1), workers()).run()
    assert fed.finished == FinishRun(True, "the plan is complete")
    assert [len(commit.parts) for commit in fed.log.commits] == [1] * 5


def test_fedbuff_commits_every_k_updates_and_issues_meanwhile() -> None:
    fed = Federation(make_plan(versions=3, buffer_size=2), workers()).run()
    assert [len(commit.parts) for commit in fed.log.commits] == [2, 2, 2]
    first = fed.log.times[1]
    assert any(issue.task.issued_at == first for issue in fed.log.issued)


def test_a_slow_worker_of_fedbuff_delivers_a_stale_update() -> None:
    mixed = [Worker("fast", 5), Worker("fast2", 5), Worker("slow", 18)]
    fed = Federation(make_plan(versions=6, buffer_size=1, concurrency=3), mixed).run()
    late = [p for c in fed.log.commits for p in c.parts if p.update.worker_id == "slow"]
    assert late[0].staleness == 5
    assert late[0].staleness_factor == pytest.approx(6**-0.5)


def test_fedavg_issues_the_next_round_only_after_the_commit() -> None:
    fed = Federation(
        make_plan(versions=3, reissue="commit"), [Worker("a", 5), Worker("b", 9)]
    ).run()
    assert [len(commit.parts) for commit in fed.log.commits] == [4, 4, 4]
    assert {p.staleness for c in fed.log.commits for p in c.parts} == {0}
    assert Counter(issue.task.base_version for issue in fed.log.issued) == {0: 4, 1: 4, 2: 4}


def test_fedavg_commits_with_its_quorum_at_the_deadline_and_closes_the_straggler() -> None:
    plan = make_plan(versions=1, reissue="commit", quorum=3, round_deadline_s=100)
    fed = Federation(plan, [*workers(3), Worker("slow", 5000)]).run()
    assert fed.log.times == {1: 100.0}
    assert [len(commit.parts) for commit in fed.log.commits] == [3]
    assert [close.rejection.kind for close in fed.log.closed] == [RejectionKind.PHASE_OVER]


def test_a_straggler_of_an_inner_round_is_closed_as_round_over() -> None:
    plan = make_plan(versions=2, reissue="commit", quorum=3, round_deadline_s=100)
    fed = Federation(plan, [*workers(3), Worker("slow", 150)]).run()
    assert fed.log.closed[0].rejection.kind is RejectionKind.ROUND_OVER
    assert {each.rejection.kind for each in fed.log.discarded} <= {RejectionKind.IDENTITY}
    assert fed.finished is not None and fed.finished.complete


def test_a_round_below_its_quorum_waits_past_the_deadline() -> None:
    plan = make_plan(versions=1, reissue="commit", quorum=3, round_deadline_s=50)
    fed = Federation(plan, [Worker("a", 90), Worker("b", 90), Worker("slow", 200)]).run()
    # The third of four updates comes from a second task of one of the first two workers.
    assert fed.log.times[1] > 180


def test_a_rounds_deadline_counts_from_the_issue_of_its_tasks() -> None:
    plan = make_plan(versions=1, reissue="commit", quorum=1, round_deadline_s=100)
    state, tasks = begin(plan, now=5000.0)
    done = machine.step(plan, state, make_update(tasks[0]), 5010.0)
    assert CommitVersion not in kinds(done)
    assert CommitVersion in kinds(machine.step(plan, done.state, Tick(), 5100.0))


def test_a_partly_filled_buffer_is_flushed_after_its_time() -> None:
    plan = make_plan(versions=1, buffer_size=2, concurrency=2, flush_s=120)
    state, tasks = begin(plan)
    state = machine.step(plan, state, make_update(tasks[0]), 10.0).state
    assert CommitVersion not in kinds(machine.step(plan, state, Tick(), 129.0))
    done = machine.step(plan, state, Tick(), 130.0)
    assert kinds(done) == [CommitVersion, CloseTask, FinishRun]


def test_a_phases_end_closes_its_open_tasks_and_discards_their_updates() -> None:
    plan = make_plan(versions=(1, 1), buffer_size=1, concurrency=2, max_staleness=20)
    wide = make_plan(versions=(1, 1), buffer_size=2, concurrency=2, flush_s=5)
    state, tasks = begin(wide)
    state = machine.step(wide, state, make_update(tasks[0]), 1.0).state
    done = machine.step(wide, state, Tick(), 6.0)
    (closed,) = [a for a in done.actions if isinstance(a, CloseTask)]
    assert closed.task_id == tasks[1].task_id
    assert closed.rejection.kind is RejectionKind.PHASE_OVER
    late = machine.step(wide, done.state, make_update(tasks[1]), 7.0)
    assert DiscardMessage in kinds(late) and AcceptUpdate not in kinds(late)
    assert {i.task.phase for i in done.actions if isinstance(i, IssueTask)} == {1}
    assert len(begin(plan)[1]) == 1


def test_norms_and_losses_of_a_phase_are_forgotten_at_its_end() -> None:
    # Preferences have other norms than instructions, whose median would clip them.
    plan = make_plan(2, versions=(2, 2), buffer_size=1, concurrency=1)
    state, (task,) = begin(plan)
    done = machine.step(plan, state, make_update(task, norm=8.0), 1.0)
    assert done.state.norms == (8.0,)
    last = done.state.client(task.client_id).last_stats
    assert last is not None and last.avg_loss == 2.0
    (task,) = issued(done)
    done = machine.step(plan, done.state, make_update(task, norm=8.0), 2.0)
    assert (done.state.version, done.state.norms) == (2, ())
    clients = [done.state.client(name) for name in plan.clients]
    assert [client.last_stats for client in clients] == [None, None]
    # Counts of the whole run stay.
    assert [client.participation for client in clients] == [1, 1]
    (task,) = issued(done)
    assert task.phase == 1
    done = machine.step(plan, done.state, make_update(task, norm=0.1), 3.0)
    assert done.state.norms == (0.1,)


# number of tasks


def two_kinds() -> Plan:
    """Return a plan in which c1 has no preferences, and c2 has nothing else."""
    rows: dict[str, dict[RowKind, int]] = {
        "c0": {"sft": 9, "va": 9}, "c1": {"sft": 9, "va": 0}, "c2": {"va": 9}
    }  # fmt: skip
    clients = {name: Client(name, "local", own) for name, own in rows.items()}
    plan = make_plan(clients, versions=(2, 2), buffer_size=2, concurrency=3)
    return replace(plan, phases=(plan.phases[0], PhaseConfig(objective="dpo", versions=2)))


def test_a_client_without_rows_of_the_phases_kind_gets_no_task() -> None:
    fed = Federation(two_kinds(), workers()).run()
    assert fed.finished == FinishRun(True, "the plan is complete")
    issued = {(issue.task.phase, issue.task.client_id) for issue in fed.log.issued}
    assert issued == {(0, "c0"), (0, "c1"), (1, "c0"), (1, "c2")}


def test_a_client_weighs_by_its_rows_of_the_phases_kind() -> None:
    clients = {"c0": Client("c0", "local", {"sft": 7, "va": 3})}
    plan = make_plan(clients, versions=(1, 1), buffer_size=1, concurrency=1)
    plan = replace(plan, phases=(plan.phases[0], PhaseConfig(objective="dpo", versions=1)))
    fed = Federation(plan, workers(1)).run()
    parts = [part for commit in fed.log.commits for part in commit.parts]
    assert [part.update.stats.num_samples for part in parts] == [7, 3]


def test_a_phase_whose_clients_are_all_quarantined_ends_the_run_as_failed() -> None:
    plan = two_kinds()
    state, _ = begin(plan)
    quarantined = ClientState(strikes=3)
    state = replace(state, version=2, tasks=MappingProxyType({}))
    state = state.with_client("c0", quarantined).with_client("c2", quarantined)
    done = machine.step(plan, state, Tick(), 1.0)
    assert [a for a in done.actions if isinstance(a, FinishRun)] == [
        FinishRun(False, "every client is quarantined", failed=True)
    ]


def test_a_client_has_one_open_task_at_a_time() -> None:
    plan = make_plan(2, versions=9, concurrency=4, buffer_size=1)
    assert len(begin(plan)[1]) == 2


def test_in_an_asynchronous_run_a_site_has_as_many_tasks_as_workers() -> None:
    plan = make_plan(8, versions=9, concurrency=8)
    assert len(begin(plan, workers=2)[1]) == 2
    assert begin(plan, workers=0)[1] == []


def test_a_synchronous_round_is_issued_whole_even_to_one_worker() -> None:
    assert len(begin(make_plan(8, concurrency=6, reissue="commit"), workers=1)[1]) == 6


def test_no_more_tasks_are_issued_than_the_phase_can_use() -> None:
    assert len(begin(make_plan(8, versions=1, concurrency=6, buffer_size=2), workers=6)[1]) == 2


def test_clients_take_turns() -> None:
    fed = Federation(make_plan(6, versions=12, buffer_size=2, concurrency=2), workers(2)).run()
    issued = Counter(issue.task.client_id for issue in fed.log.issued)
    assert max(issued.values()) - min(issued.values()) <= 1


# leases


def test_a_dead_workers_task_is_issued_again_from_the_current_version() -> None:
    plan = make_plan(2, versions=4, buffer_size=1, concurrency=2, lease_s=60)
    fed = Federation(plan, [Worker("dies", 30, away=[(5, 10**9)]), Worker("works", 15)]).run()
    again = [issue.task for issue in fed.log.issued if issue.task.attempt == 2]
    assert again[0].bases[0] == 0 < again[0].bases[1]
    assert fed.finished is not None and fed.finished.complete


def test_a_heartbeat_that_names_the_task_renews_its_lease() -> None:
    plan = make_plan(1, buffer_size=1, lease_s=60)
    state, (task,) = begin(plan)
    state = machine.step(
        plan, state, HeartbeatsRead((WorkerSignal("local", True, task.task_id),)), 50.0
    ).state
    assert state.tasks[task.task_id].lease_until == 110.0


def test_another_sites_heartbeat_renews_nothing() -> None:
    plan = make_plan(1, buffer_size=1, lease_s=60)
    state, (task,) = begin(plan)
    signals = (WorkerSignal("elsewhere", True, task.task_id), IDLE)
    state = machine.step(plan, state, HeartbeatsRead(signals), 50.0).state
    assert state.tasks[task.task_id].lease_until == 60.0


def test_a_queued_task_does_not_expire_while_a_worker_of_its_site_is_busy() -> None:
    plan = make_plan(2, versions=1, buffer_size=2, concurrency=2, lease_s=60)
    fed = Federation(plan, [Worker("only", 500)]).run()
    assert {issue.task.attempt for issue in fed.log.issued} == {1}


def test_a_task_that_idle_workers_do_not_name_was_lost_and_is_issued_again() -> None:
    plan = make_plan(1, buffer_size=1, lease_s=60)
    state, _ = begin(plan)
    done = machine.step(plan, state, HeartbeatsRead((IDLE,)), 60.0)
    (again,) = issued(done)
    assert (again.attempt, again.task_id) == (2, "t000001")


def test_a_task_past_its_deadline_is_issued_again_even_if_its_worker_names_it() -> None:
    plan = make_plan(1, buffer_size=1, lease_s=60, task_deadline_s=600)
    state, (task,) = begin(plan)
    done = machine.step(
        plan, state, HeartbeatsRead((WorkerSignal("local", True, task.task_id),)), 600.0
    )
    assert IssueTask in kinds(done)


def test_the_update_of_an_older_attempt_counts_and_the_newer_ones_does_not() -> None:
    plan = make_plan(1, versions=2, buffer_size=1, lease_s=60)
    state, (task,) = begin(plan)
    state = machine.step(plan, state, HeartbeatsRead((IDLE,)), 60.0).state
    newer = state.tasks[task.task_id]
    first = machine.step(plan, state, make_update(task), 61.0)
    assert kinds(first)[:2] == [AcceptUpdate, CommitVersion]
    second = machine.step(plan, first.state, make_update(newer), 62.0)
    assert AcceptUpdate not in kinds(second)


def two_sites() -> Plan:
    clients = {
        name: Client(name, site, {"sft": 100})
        for name, site in (("c0", "near"), ("c1", "far"), ("c2", "near"))
    }
    return make_plan(clients, versions=400, buffer_size=1, concurrency=2, lease_s=60)


def test_a_silent_sites_task_is_parked_and_gives_its_place_to_others() -> None:
    plan = two_sites()
    signals = (WorkerSignal("near", False, None), WorkerSignal("far", False, None))
    state = machine.step(plan, CoordinatorState(), HeartbeatsRead(signals), 0.0).state
    assert {task.client_id for task in state.tasks.values()} == {"c0", "c1"}
    near = (WorkerSignal("near", True, "t000001"), WorkerSignal("near", False, None))
    done = machine.step(plan, state, HeartbeatsRead(near), 60.0)
    assert done.state.tasks["t000002"].parked
    assert [task.client_id for task in issued(done)] == ["c2"]
    assert any(isinstance(a, LogEvent) and a.kind is EventKind.LEASE for a in done.actions)
    # There is one event.
    assert machine.step(plan, done.state, Tick(), 61.0).actions == ()


def test_a_site_that_rests_gets_no_task_and_is_not_called_silent() -> None:
    plan = two_sites()
    near, resting = WorkerSignal("near", False, None), WorkerSignal("far", False, None, (), True)
    state = machine.step(plan, CoordinatorState(), HeartbeatsRead((near, resting)), 0.0).state
    assert {task.client_id for task in state.tasks.values()} == {"c0"}
    awake = replace(resting, resting=False)
    state = machine.step(plan, state, HeartbeatsRead((near, awake)), 1.0).state
    busy = WorkerSignal("near", True, "t000001")
    done = machine.step(plan, state, HeartbeatsRead((busy, resting)), 61.0)
    assert done.state.tasks["t000002"].parked
    texts = [action.text for action in done.actions if isinstance(action, LogEvent)]
    assert any("site far, which rests" in text for text in texts)
    again = machine.step(plan, done.state, HeartbeatsRead((busy, awake)), 70.0)
    assert [task.attempt for task in issued(again)] == [2]


def test_a_worker_that_rests_while_it_sends_an_update_keeps_the_lease() -> None:
    plan = two_sites()
    awake = (WorkerSignal("near", False, None), WorkerSignal("far", False, None))
    state = machine.step(plan, CoordinatorState(), HeartbeatsRead(awake), 0.0).state
    sending = (
        WorkerSignal("near", True, "t000001"),
        WorkerSignal("far", True, "t000002", (), True),
    )
    state = machine.step(plan, state, HeartbeatsRead(sending), 50.0).state
    done = machine.step(plan, state, HeartbeatsRead(sending), 70.0)
    assert not done.state.tasks["t000002"].parked and IssueTask not in kinds(done)


def test_a_parked_task_is_issued_again_when_its_site_is_back() -> None:
    fed = Federation(two_sites(), [Worker("n", 9, "near"), Worker("f", 9, "far", [(5, 700)])]).run(
        800
    )
    again = [issue.task for issue in fed.log.issued if issue.task.attempt == 2]
    assert [(task.client_id, task.issued_at) for task in again] == [("c1", 700.0)]
    assert "c1" in {part.update.client_id for c in fed.log.commits for part in c.parts}


def test_a_parked_task_that_its_worker_still_trains_is_not_issued_again() -> None:
    plan = two_sites()
    signals = (WorkerSignal("near", False, None), WorkerSignal("far", False, None))
    state = machine.step(plan, CoordinatorState(), HeartbeatsRead(signals), 0.0).state
    state = machine.step(
        plan, state, HeartbeatsRead((WorkerSignal("near", True, "t000001"),)), 60.0
    ).state
    back = HeartbeatsRead(
        (WorkerSignal("near", True, "t000001"), WorkerSignal("far", True, "t000002"))
    )
    done = machine.step(plan, state, back, 70.0)
    assert IssueTask not in kinds(done)
    assert not done.state.tasks["t000002"].parked


def test_without_the_store_updates_count_and_nothing_is_issued_or_expires() -> None:
    plan = make_plan(2, versions=8, buffer_size=1, concurrency=2, lease_s=60)
    fed = Federation(plan, workers(2), store_down=[(5, 400)]).run()
    assert not [i for i in fed.log.issued if 5 <= i.task.issued_at < 400]
    assert [t for t in fed.log.times.values() if 5 < t < 400]
    assert {issue.task.attempt for issue in fed.log.issued} == {1}
    assert fed.finished is not None and fed.finished.complete


# refusals


def refuse(task: OpenTask, site: str = "local", **changed: object) -> TaskRefused:
    fields = {"attempt": task.attempt, "client_id": task.client_id} | changed
    return TaskRefused(task.task_id, site=site, reason="no base model", **fields)  # type: ignore[arg-type]


def refused_by_all(plan: Plan, state: CoordinatorState, task: OpenTask) -> Transition:
    """Return the transition after three workers in turn have refused a task."""
    for attempt in (1, 2):
        done = machine.step(plan, state, refuse(task), 1.0)
        (again,) = issued(done)
        assert (again.task_id, again.attempt) == (task.task_id, attempt + 1)
        assert done.state.client(task.client_id).strikes == state.client(task.client_id).strikes
        state, task = done.state, again
    return machine.step(plan, state, refuse(task), 1.0)


def test_a_refused_task_goes_to_another_worker_and_a_duplicate_refusal_does_nothing() -> None:
    plan = make_plan(2, versions=20, buffer_size=1, concurrency=1)
    state, (task,) = begin(plan)
    done = machine.step(plan, state, refuse(task), 1.0)
    assert [task.attempt for task in issued(done)] == [2]
    assert machine.step(plan, done.state, refuse(task), 2.0) == Transition(done.state)


def test_a_task_that_the_only_worker_of_its_site_refuses_is_closed_at_once() -> None:
    plan = make_plan(2, versions=20, buffer_size=1, concurrency=1)
    state, (task,) = begin(plan, workers=1)
    done = machine.step(plan, state, refuse(task), 1.0)
    assert any(isinstance(action, CloseTask) for action in done.actions)
    assert done.state.client(task.client_id).strikes == 1
    assert [task.client_id for task in issued(done)] == ["c1"]


def test_a_run_goes_on_without_the_client_that_its_worker_refuses() -> None:
    plan = make_plan(3, versions=6, buffer_size=2)
    fed = Federation(plan, [Worker("w0", refuses=("c1",))]).run()
    assert fed.finished == FinishRun(True, "the plan is complete")
    assert fed.state.client("c1").quarantined
    assert {part.update.client_id for commit in fed.log.commits for part in commit.parts} == {
        "c0",
        "c2",
    }


def test_a_task_that_nobody_can_train_is_closed_and_three_in_a_row_quarantine_the_client() -> None:
    plan = make_plan(2, versions=20, buffer_size=1, concurrency=1)
    state, (task,) = begin(plan)
    for expected in (1, 2, 3):
        while task.client_id != "c0":
            done = machine.step(plan, state, make_update(task), 1.0)
            state, (task,) = done.state, issued(done)
        done = refused_by_all(plan, state, task)
        state, (task,) = done.state, issued(done)
        assert state.client("c0").strikes == expected
    assert any(isinstance(a, LogEvent) and a.kind is EventKind.QUARANTINED for a in done.actions)
    done = machine.step(plan, state, make_update(task), 1.0)
    assert [task.client_id for task in issued(done)] == ["c1"]


def test_a_stale_update_is_rejected_without_a_strike_and_a_flawed_one_with_one() -> None:
    plan = make_plan(3, versions=20, buffer_size=1, concurrency=2, max_staleness=0)
    state, (one, two) = begin(plan, workers=2)
    state = machine.step(plan, state, make_update(one), 1.0).state
    done = machine.step(plan, state, make_update(two), 2.0)
    assert [a.rejection.kind for a in done.actions if isinstance(a, CloseTask)] == [
        RejectionKind.STALE
    ]
    assert done.state.client(two.client_id).strikes == 0
    (third,) = issued(done)
    bad = machine.step(
        plan,
        done.state,
        make_update(third, problem=Rejection(RejectionKind.NOT_FINITE, "not finite")),
        3.0,
    )
    assert bad.state.client(third.client_id).strikes == 1


def test_an_accepted_update_clears_the_strikes() -> None:
    plan = make_plan(1, versions=20, buffer_size=1, concurrency=1)
    state, (task,) = begin(plan)
    done = machine.step(plan, state, refuse(task), 1.0)
    (task,) = issued(done)
    done = machine.step(plan, done.state, make_update(task), 1.0)
    assert done.state.client("c0").strikes == 0


def test_a_run_whose_clients_are_all_quarantined_ends_as_failed() -> None:
    fed = Federation(make_plan(2, buffer_size=1), workers(2, refuses=True)).run()
    assert fed.finished == FinishRun(False, "every client is quarantined", failed=True)
    assert fed.log.commits == []


@pytest.mark.parametrize(
    "changed", [{"site": "elsewhere"}, {"client_id": "c1"}, {"client_id": "?"}, {"attempt": 7}]
)
def test_a_refusal_by_another_site_client_or_attempt_is_discarded(
    changed: dict[str, object],
) -> None:
    state, tasks = begin(make_plan())
    done = machine.step(make_plan(), state, refuse(tasks[0], **changed), 1.0)  # type: ignore[arg-type]
    assert kinds(done) == [DiscardMessage]
    assert done.state == state


# ends


def test_a_stop_commits_the_buffer_and_ends_the_run() -> None:
    plan = make_plan(versions=4, buffer_size=3)
    state, tasks = begin(plan)
    state = machine.step(plan, state, make_update(tasks[0]), 1.0).state
    done = machine.step(plan, state, StopRequested(), 2.0)
    assert kinds(done) == [CommitVersion, FinishRun]
    assert done.actions[-1] == FinishRun(False, "stopped on request")


def test_a_stop_with_an_empty_buffer_only_ends_the_run() -> None:
    state, _ = begin(make_plan())
    assert kinds(machine.step(make_plan(), state, StopRequested(), 2.0)) == [FinishRun]


def test_a_duplicate_update_repeats_the_receipt() -> None:
    state, _ = begin(make_plan())
    assert machine.step(make_plan(), state, DuplicateArrived("t000009"), 1.0).actions == (
        RepeatReceipt("t000009"),
    )


def test_a_clients_claimed_rows_are_limited_to_those_it_was_assigned() -> None:
    plan = make_plan(rows=7, buffer_size=3)
    state, tasks = begin(plan)
    done = machine.step(plan, state, make_update(tasks[0]), 1.0)
    assert done.state.buffer[0].stats.num_samples == 7


def test_two_updates_of_one_client_in_a_buffer_share_its_weight() -> None:
    plan = make_plan(2, versions=9, buffer_size=3, concurrency=2)
    state, (one, two) = begin(plan, workers=2)
    done = machine.step(plan, state, make_update(one), 1.0)
    (third,) = issued(done)
    assert third.client_id == one.client_id
    state = machine.step(plan, done.state, make_update(third), 2.0).state
    done = machine.step(plan, state, make_update(two), 3.0)
    (commit,) = [a for a in done.actions if isinstance(a, CommitVersion)]
    assert [part.weight for part in commit.parts] == pytest.approx([0.25, 0.25, 0.5])

"""Schedule: the time at which the buffer becomes a version, and the clients that train next.

On an update's path this comes after `coordinator/core/admission.py`; next is
`coordinator/aggregation/coefficients.py`, which computes how much each update counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from common.protocol.kinds import RejectionKind
from coordinator.aggregation.coefficients import compute_parts
from coordinator.core import privacy, scores
from coordinator.core.events import CloseTask, CommitVersion, IssueTask, Rejection
from coordinator.core.index_update import index_of, with_index
from coordinator.core.leases import reissue_expired
from coordinator.core.minimum import enough_clients, sole_contributor, trainable_clients
from coordinator.core.pace import assigned_steps, typical
from coordinator.core.state import ClientState, CoordinatorState, OpenTask, Plan
from coordinator.core.state_changes import apply_commit
from coordinator.core.transition import Transition
from coordinator.persistent.ordered_map import OrderedMap


def commit_if_ready(plan: Plan, state: CoordinatorState, now: float) -> Transition:
    """Commit the next version if the buffer is full or its time is up.

    It waits for the minimum of live clients, where that is above 1 for the update of a second
    client, and a while for scores of the updates.
    """
    ready = buffer_ready(plan, state, now) and sole_contributor(plan, state) is None
    requested = scores.request_scores(plan, state, now, ready)
    state = requested.state
    if not ready or not enough_clients(plan, state, now):
        return requested
    if scores.must_wait(plan, state, now):
        return requested.then(state=replace(state, full_at=state.full_at or now))
    scored = scores.give_up_waiting(plan, state)
    state = scored.state
    phase = plan.phase_of(state.version)
    commit = CommitVersion(state.version + 1, phase, compute_parts(plan, state))
    after = apply_commit(plan, state, commit)
    closed = _close_obsolete_tasks(plan, after, phase)
    if closed:
        after = replace(after, tasks=OrderedMap())
    return requested.then(*scored.actions, commit, *closed, state=after)


def drained(plan: Plan, state: CoordinatorState, now: float) -> bool:
    """Return whether no open task can still end, so that a draining run is over.

    A parked task waits for a silent site. One whose lease has run out is lost unless it is issued
    again, which it is not below the minimum of live clients.
    """
    enough = enough_clients(plan, state, now)
    return all(
        task.parked or (not enough and now >= task.lease_until) for task in state.tasks.values()
    )


def eligible_clients(plan: Plan, state: CoordinatorState) -> Iterator[str]:
    """Yield the clients that may get tasks in the current phase, in the plan's order."""
    return trainable_clients(plan, state, plan.current_phase(state.version))


def issue_tasks(plan: Plan, state: CoordinatorState, now: float) -> Transition:
    """Issue tasks again whose lease has run out, and new tasks as far as there is room.

    Nothing is issued while the store is out of reach (workers could not fetch the adapter), nor
    while the run is paused or has fewer live clients than its minimum, and no new task while too
    many updates wait for their scores. A draining run only finishes
    its open tasks: one whose worker has died is issued again, or the drain would wait for it
    forever.
    """
    if not state.store_up or state.paused:
        return Transition(state)
    enough = enough_clients(plan, state, now)
    reissued = reissue_expired(plan, state, now, issue=enough)
    state = reissued.state
    behind = scores.backlog(plan, state) >= scores.backlog_limit(plan)
    if state.draining or not enough or behind:
        return reissued
    # A new round follows one whose updates were all rejected, or all but those of one client.
    unfinished = state.tasks or (state.buffer and sole_contributor(plan, state) is None)
    if plan.schedule.reissue == "commit" and state.round_issued and unfinished:
        return reissued
    issued = _issue_new(plan, state, now)
    return reissued.then(*issued.actions, state=issued.state)


def buffer_ready(plan: Plan, state: CoordinatorState, now: float) -> bool:
    """Return whether the buffer is full or its time is up; an empty one never is."""
    schedule = plan.schedule
    if not state.buffer:
        return False
    if state.stopping:
        return True
    if schedule.reissue == "immediate":
        waited = now - state.buffered_at
        return len(state.buffer) >= schedule.buffer or waited >= schedule.flush_s
    if len(state.buffer) >= schedule.buffer or not state.tasks:
        return True  # the buffer is full, or every client of a smaller round has answered
    late = now - state.round_at >= schedule.round_deadline_s
    return late and len(state.buffer) >= (schedule.quorum or schedule.buffer)


def _close_obsolete_tasks(plan: Plan, state: CoordinatorState, phase: int) -> list[CloseTask]:
    if state.version >= plan.phase_end(phase):
        rejection = Rejection(RejectionKind.PHASE_OVER, "phase over")
    elif plan.schedule.reissue == "commit":
        reason = f"round over: version {state.version} was committed without it"
        rejection = Rejection(RejectionKind.ROUND_OVER, reason)
    else:
        return []
    return [CloseTask(t.task_id, t.client_id, rejection) for t in state.tasks.values()]


def _issue_new(plan: Plan, state: CoordinatorState, now: float) -> Transition:
    state, phase = with_index(plan, state), plan.phase_of(state.version)
    members = state.members(plan)
    tasks, clients = list[OpenTask](), list[tuple[str, ClientState]]()
    for number, client_id in enumerate(_next_clients(plan, state), state.issued + 1):
        task = OpenTask(
            task_id=f"t{number:06d}",
            client_id=client_id,
            phase=phase,
            seed=number,
            bases=(state.version,),
            issued_at=now,
            lease_until=now + plan.schedule.lease_s,
            steps=_local_steps(plan, state, client_id),
        )
        client = state.client(client_id)
        tasks.append(task)
        clients.append((client_id, replace(client, issued=client.issued + 1)))
    if not tasks:
        return Transition(state)
    after = state.with_tasks(tasks).with_clients(clients)
    after = after.changed(
        issued=state.issued + len(tasks),
        round_issued=True,
        round_at=now,
    )
    return Transition(after, tuple(IssueTask(t, members[t.client_id].site) for t in tasks))


def _local_steps(plan: Plan, state: CoordinatorState, client_id: str) -> int:
    """Return the local steps of a client's next task; 0 if they do not depend on its speed."""
    limits, index = plan.schedule.adaptive_steps, index_of(plan, state)
    if limits is None:
        return 0
    usual = plan.phases[plan.phase_of(state.version)].local_steps
    return assigned_steps(typical(state.client(client_id).paces), index.target_s, usual, limits)


def _next_clients(plan: Plan, state: CoordinatorState) -> Iterator[str]:
    """Return the clients that get a task now, those with the fewest tasks so far first.

    A client has at most one open task. One that wants a task counts as if it had had `AHEAD` fewer,
    so it comes sooner, but however often it asks, it is never further ahead than that.
    """
    index = index_of(plan, state)
    needed = _tasks_needed(plan, state, index.running)
    skipped, alone = privacy.is_barred(plan, state), sole_contributor(plan, state)
    if alone is not None and len(state.buffer) >= plan.schedule.buffer:
        others = len(index.busy) - (alone in index.busy)
        needed = max(needed, 0 if others else 1)  # the buffer waits for another client
    else:
        alone = None
    places = min(plan.schedule.concurrency - index.running, needed)
    clients = index.in_turn(lambda name: name == alone or skipped(name))
    return islice(clients, max(0, places))


def _tasks_needed(plan: Plan, state: CoordinatorState, running: int) -> int:
    """Return how many more tasks the phase can use; beyond that clients would train for nothing."""
    versions_left = plan.phase_end(plan.phase_of(state.version)) - state.version
    return versions_left * plan.schedule.buffer - len(state.buffer) - running

"""Schedule: the time at which the buffer becomes a version, and the clients that train next.

On an update's path this comes after `coordinator/core/admission.py`; next is
`coordinator/aggregation/coefficients.py`, which computes how much each update counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from common.protocol.kinds import RejectionKind
from coordinator.aggregation.coefficients import compute_parts
from coordinator.core import privacy, scores
from coordinator.core.evaluations import running_by_site
from coordinator.core.events import CloseTask, CommitVersion, IssueTask, Rejection
from coordinator.core.leases import reissue_expired
from coordinator.core.minimum import enough_clients, sole_contributor, trainable_clients
from coordinator.core.state import CoordinatorState, OpenTask, Plan
from coordinator.core.state_changes import apply_commit
from coordinator.core.transition import Transition

AHEAD = 2  # tasks by which a client that wants one may be ahead of its turn


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
    for close in closed:
        after = after.without_task(close.task_id)
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


def eligible_clients(plan: Plan, state: CoordinatorState) -> list[str]:
    """Return the clients that may get tasks in the current phase, in the plan's order."""
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
    issued: list[IssueTask] = []
    members = state.members(plan)
    for client_id in _next_clients(plan, state):
        number = state.issued + 1
        task = OpenTask(
            task_id=f"t{number:06d}",
            client_id=client_id,
            phase=plan.phase_of(state.version),
            seed=number,
            bases=(state.version,),
            issued_at=now,
            lease_until=now + plan.schedule.lease_s,
        )
        client = state.client(client_id)
        client = replace(client, issued=client.issued + 1)
        state = replace(state.with_task(task).with_client(client_id, client), issued=number)
        issued.append(IssueTask(task, members[client_id].site))
    if issued:
        state = replace(state, round_issued=True, round_at=now)
    return Transition(state, tuple(issued))


def _next_clients(plan: Plan, state: CoordinatorState) -> Iterator[str]:
    """Yield the clients that get a task now, those with the fewest tasks so far first.

    A client has at most one open task. One that wants a task counts as if it had had `AHEAD` fewer,
    so it comes sooner, but however often it asks, it is never further ahead than that.
    """
    members = state.members(plan)
    total = sum(not task.parked for task in state.tasks.values())
    running = running_by_site(plan, state)
    needed = _tasks_needed(plan, state, total)
    busy = {task.client_id for task in state.tasks.values()}
    free = [client for client in eligible_clients(plan, state) if client not in busy]
    free = privacy.without_spent(plan, state, free)
    alone = sole_contributor(plan, state)
    if alone is not None and len(state.buffer) >= plan.schedule.buffer:
        free = [client for client in free if client != alone]
        needed = max(needed, 0 if busy - {alone} else 1)  # the buffer waits for another client
    places = min(plan.schedule.concurrency - total, needed)

    def turn(client: str) -> int:
        return state.client(client).issued - (AHEAD if client in state.wishes else 0)

    for client in sorted(free, key=turn):  # stable: the plan's order decides between equals
        site = members[client].site
        if places > 0 and running[site] < _site_capacity(plan, state, site):
            running[site] += 1
            places -= 1
            yield client


def _site_capacity(plan: Plan, state: CoordinatorState, site: str) -> int:
    """Return how many tasks a site may have at a time.

    In an asynchronous run it is the number of its workers: a task that waits in a queue only grows
    stale, and the gap between two tasks is short (docs/log.md has the cost of one more task).
    """
    workers = state.workers_by_site.get(site, 0)
    if plan.schedule.reissue == "commit":
        return plan.schedule.concurrency if workers else 0
    return workers


def _tasks_needed(plan: Plan, state: CoordinatorState, running: int) -> int:
    """Return how many more tasks the phase can use; beyond that clients would train for nothing."""
    versions_left = plan.phase_end(plan.phase_of(state.version)) - state.version
    return versions_left * plan.schedule.buffer - len(state.buffer) - running

"""Who trains next, and when the buffer becomes a version. Pure; part of `coordinator/core/machine.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

from common.protocol.updates import ContributionStats
from coordinator.aggregation.contribution import contribution_weights, single_client_step
from coordinator.aggregation.staleness import participation, staleness_factor
from coordinator.core.events import (
    Action,
    CloseTask,
    CommitPart,
    CommitVersion,
    IssueTask,
    LogEvent,
)
from coordinator.core.state import CoordinatorState, OpenTask, Plan
from coordinator.core.transition import Transition

AHEAD = 2  # tasks by which a client that has learned something may go before its turn


def commit_if_ready(plan: Plan, state: CoordinatorState, now: float) -> Transition | None:
    """The next version, if the buffer is full or its time is up; None while it is not."""
    if not state.buffer or not _ripe(plan, state, now):
        return None
    phase = plan.phase_of(state.version)
    action = CommitVersion(state.version + 1, phase, parts(plan, state))
    after = committed(plan, state, action)
    over = _over(plan, after, phase)
    for closed in over:
        after = after.without_task(closed.task_id)
    return Transition(after, (action, *over))


def committed(plan: Plan, state: CoordinatorState, action: CommitVersion) -> CoordinatorState:
    """The state after a commit; recovery rebuilds it from the same rule.

    What a phase has taught about losses and norms says nothing of the next one's.
    """
    for part in action.parts:
        client = state.client(part.update.client_id)
        client = replace(client, participation=client.participation + 1)
        state = state.with_client(part.update.client_id, client)
    if action.version == plan.phase_end(action.phase):
        fresh = {name: replace(client, last=None) for name, client in state.clients.items()}
        state = replace(state, norms=(), clients=MappingProxyType(fresh))
    return replace(state, version=action.version, buffer=(), round_issued=False)


def parts(plan: Plan, state: CoordinatorState) -> tuple[CommitPart, ...]:
    """Every buffered update with its share of the step.

    A client's weight is shared by its updates in the buffer; its score is that of the newest.
    """
    newest = {update.client_id: update.stats for update in state.buffer}
    count = Counter(update.client_id for update in state.buffer)
    shares = _shares(plan, state, newest)
    mean, mine = _participation(state, count)
    result = []
    for update in state.buffer:
        score, weight = shares[update.client_id]
        staleness = state.version - update.base_version
        discount = staleness_factor(staleness, plan.aggregation.staleness_exponent)
        balance = participation(mine[update.client_id], mean)
        share = weight / count[update.client_id]
        step = share * discount * balance * update.clip * plan.aggregation.server_lr
        result.append(CommitPart(update, staleness, score, share, discount, balance, step))
    return tuple(result)


def eligible_clients(plan: Plan, state: CoordinatorState) -> list[str]:
    """Clients that may be given tasks in the current phase, in the plan's order."""
    phase = plan.phase_of(state.version)
    return [
        name
        for name, client in state.members(plan).items()
        if plan.rows(client, phase) and not state.client(name).quarantined
    ]


def issue_tasks(plan: Plan, state: CoordinatorState, now: float) -> Transition:
    """Issue tasks into the free places, and again where a lease ran out.

    Nothing is issued while the store is out of reach (workers could not fetch the adapter), nor
    while the run is paused. A run that is drained only finishes what is open: a task whose worker
    has died is issued again, or the drain would wait for it forever.
    """
    if not state.store_up or state.paused:
        return Transition(state)
    state, reissued = _reissue(plan, state, now)
    if state.draining:
        return Transition(state, reissued)
    waiting = state.tasks or state.buffer  # a round whose every update was refused starts again
    if plan.schedule.reissue == "commit" and state.round_issued and waiting:
        return Transition(state, reissued)
    state, issued = _issue(plan, state, now)
    if issued:
        state = replace(state, round_issued=True, round_at=now)
    return Transition(state, (*reissued, *issued))


def _ripe(plan: Plan, state: CoordinatorState, now: float) -> bool:
    schedule = plan.schedule
    if state.stopping:
        return True
    if schedule.reissue == "immediate":
        waited = now - state.buffered_at
        return len(state.buffer) >= schedule.buffer or waited >= schedule.flush_s
    if len(state.buffer) >= schedule.buffer or not state.tasks:
        return True  # full, or everyone of a smaller round has answered
    late = now - state.round_at >= schedule.round_deadline_s
    return late and len(state.buffer) >= (schedule.quorum or schedule.buffer)


def _over(plan: Plan, state: CoordinatorState, phase: int) -> list[CloseTask]:
    """Tasks that the commit leaves without a purpose, closed with the reason."""
    if state.version >= plan.phase_end(phase):
        reason = "phase over"
    elif plan.schedule.reissue == "commit":
        reason = f"round over: version {state.version} was committed without it"
    else:
        return []
    return [CloseTask(t.task_id, t.client_id, reason) for t in state.tasks.values()]


def _shares(
    plan: Plan, state: CoordinatorState, newest: dict[str, ContributionStats]
) -> dict[str, tuple[float, float]]:
    if len(newest) > 1:
        return contribution_weights(newest, plan.aggregation)
    client = next(iter(newest))
    known = {name: c.last for name, c in state.clients.items() if c.last is not None}
    return {client: single_client_step(client, known | newest, plan.aggregation)}


def _participation(state: CoordinatorState, count: Counter[str]) -> tuple[float, dict[str, float]]:
    """Mean participation of the clients that took part, and each one's.

    An update of the buffer counts half: counted whole, clients that merely come first in a turn
    would always look too busy; not at all, those that come last too idle. One extra each keeps the
    first few updates from looking like a trend.
    """
    seen = {name: 1.0 + c.participation for name, c in state.clients.items() if c.participation}
    for client, updates in count.items():
        seen[client] = seen.get(client, 1.0) + updates / 2
    return sum(seen.values()) / len(seen), seen


def _reissue(
    plan: Plan, state: CoordinatorState, now: float
) -> tuple[CoordinatorState, tuple[Action, ...]]:
    actions: list[Action] = []
    members = state.members(plan)
    for task in state.tasks.values():
        site = members[task.client_id].site
        late = now - task.issued_at >= plan.schedule.task_deadline_s
        if now < task.lease_until and not late and not (task.parked and site in state.sites):
            continue
        if site not in state.sites:
            if not task.parked:
                state = state.with_task(replace(task, parked=True))
                actions.append(_note(task, f"waits for site {site}, which is silent"))
            continue
        again = replace(
            task,
            bases=(*task.bases, state.version),
            issued_at=now,
            lease_until=now + plan.schedule.lease_s,
            parked=False,
        )
        state = state.with_task(again)
        actions += [
            IssueTask(again, site),
            _note(again, f"is issued again, attempt {again.attempt}"),
        ]
    return state, tuple(actions)


def _issue(
    plan: Plan, state: CoordinatorState, now: float
) -> tuple[CoordinatorState, tuple[IssueTask, ...]]:
    issued: list[IssueTask] = []
    members = state.members(plan)
    for client in _next_clients(plan, state):
        number = state.issued + 1
        task = OpenTask(
            task_id=f"t{number:06d}",
            client_id=client,
            phase=plan.phase_of(state.version),
            seed=number,
            bases=(state.version,),
            issued_at=now,
            lease_until=now + plan.schedule.lease_s,
        )
        seen = state.client(client)
        state = replace(
            state.with_task(task).with_client(client, replace(seen, issued=seen.issued + 1)),
            issued=number,
        )
        issued.append(IssueTask(task, members[client].site))
    return state, tuple(issued)


def _next_clients(plan: Plan, state: CoordinatorState) -> Iterator[str]:
    """Those with the fewest tasks so far first, at most one open task a client.

    Who asks for a task counts as if it had had `AHEAD` fewer: it comes sooner, and however often it
    asks, it is never more than so many ahead of the others.
    """
    members = state.members(plan)
    running = Counter(members[t.client_id].site for t in state.tasks.values() if not t.parked)
    places = min(plan.schedule.concurrency - running.total(), _needed(plan, state, running.total()))
    taken = {task.client_id for task in state.tasks.values()}
    free = [client for client in eligible_clients(plan, state) if client not in taken]

    def turn(client: str) -> int:
        return state.client(client).issued - (AHEAD if client in state.wishes else 0)

    for client in sorted(free, key=turn):  # stable
        site = members[client].site
        if places > 0 and running[site] < _room(plan, state, site):
            running[site] += 1
            places -= 1
            yield client


def _room(plan: Plan, state: CoordinatorState, site: str) -> int:
    """Tasks that a site may hold at once.

    Asynchronously no more than it has workers: what waits in a queue only grows stale, and the gap
    between two tasks is short against a task (docs/log.md has what one more costs).
    """
    workers = state.sites.get(site, 0)
    if plan.schedule.reissue == "commit":
        return plan.schedule.concurrency if workers else 0
    return workers


def _needed(plan: Plan, state: CoordinatorState, running: int) -> int:
    """Tasks that the phase can still use: no client trains for nothing at its end."""
    left = plan.phase_end(plan.phase_of(state.version)) - state.version
    return left * plan.schedule.buffer - len(state.buffer) - running


def _note(task: OpenTask, text: str) -> LogEvent:
    refs = (("task", task.task_id), ("client", task.client_id))
    return LogEvent("warning", "lease", f"task {task.task_id} of {task.client_id} {text}", refs)

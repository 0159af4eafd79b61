"""The federation's logic, without I/O: (plan, state, event, now) → (state, actions).

It opens no socket, reads no clock and draws no random number, so the live service, the embedded
demo and the tests' virtual time run the very same code. The driver (`coordinator/service.py`)
carries the actions out in order, journal first; `recovery.py` rebuilds the state from the journal.

Two knobs make every mode: the buffer size K, and when to issue again. K = 1 is FedAsync; K > 1
with immediate reissue is FedBuff; K = concurrency with reissue after the commit is FedAvg.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import MappingProxyType

from coordinator.core import admission, commands, schedule
from coordinator.core.events import (
    AcceptUpdate,
    AdmitClient,
    CloseTask,
    CommandReceived,
    CoordinatorEvent,
    DiscardMessage,
    DismissClient,
    DuplicateArrived,
    EnrolmentRequested,
    FinishRun,
    HeartbeatsRead,
    LogEvent,
    RepeatReceipt,
    SiteRevoked,
    StopRequested,
    TaskRefused,
    Tick,
    UpdateArrived,
)
from coordinator.core.state import (
    NORM_HISTORY,
    REFUSALS,
    STRIKES,
    BufferedUpdate,
    Client,
    ClientState,
    CoordinatorState,
    Plan,
)
from coordinator.core.transition import Transition


def step(plan: Plan, state: CoordinatorState, event: CoordinatorEvent, now: float) -> Transition:
    """What an event changes, and what is to be done about it."""
    match event:
        case UpdateArrived():
            handled = _candidate(plan, state, event, now)
        case DuplicateArrived():
            handled = Transition(state, (RepeatReceipt(event.task_id),))
        case TaskRefused():
            handled = _refused(plan, state, event, now)
        case HeartbeatsRead():
            handled = _beats(plan, state, event, now)
        case EnrolmentRequested():
            handled = _enrol(plan, state, event)
        case SiteRevoked():
            handled = _leave(state, event)
        case CommandReceived():
            handled = commands.carry_out(plan, state, event.command, now)
        case StopRequested():
            handled = Transition(replace(state, stopping=True))
        case Tick():
            handled = Transition(state)
    return _advance(plan, handled, now)


def _advance(plan: Plan, done: Transition, now: float) -> Transition:
    """Commit if the buffer is ripe, finish if the plan is fulfilled, else fill the free places."""
    if done.state.draining and all(task.parked for task in done.state.tasks.values()):
        done = done.then(state=replace(done.state, stopping=True))
    if ready := schedule.commit_if_ready(plan, done.state, now):
        done = done.then(*ready.actions, state=ready.state)
    if done.state.version >= plan.total_versions:
        return done.then(FinishRun(complete=True, reason="the plan is complete"))
    if done.state.stopping:
        reason = "drained on request" if done.state.draining else "stopped on request"
        return done.then(FinishRun(complete=False, reason=reason))
    if not schedule.eligible_clients(plan, done.state):
        return done.then(
            FinishRun(complete=False, reason="every client is quarantined", failed=True)
        )
    filled = schedule.issue_tasks(plan, done.state, now)
    return done.then(*filled.actions, state=filled.state)


def _candidate(
    plan: Plan, state: CoordinatorState, update: UpdateArrived, now: float
) -> Transition:
    verdict = admission.decide(plan, state, update)
    if verdict.reason and not verdict.binding:
        return Transition(
            state, (DiscardMessage(verdict.reason), _rejection(update, verdict.reason))
        )
    if verdict.reason:
        closed = _close(state, update, verdict.reason, strikes=verdict.strikes)
        return closed.then(_rejection(update, verdict.reason))
    return _accept(plan, state, update, verdict.clip, now)


def _accept(
    plan: Plan, state: CoordinatorState, update: UpdateArrived, clip: float, now: float
) -> Transition:
    # A client cannot weigh more than the rows that it was assigned, whatever it claims.
    client = state.members(plan)[update.client_id]
    rows = min(update.stats.num_samples, plan.rows(client, update.phase))
    accepted = BufferedUpdate(
        task_id=update.task_id,
        attempt=update.attempt,
        client_id=update.client_id,
        worker_id=update.worker_id,
        base_version=update.base_version,
        stats=update.stats.model_copy(update={"num_samples": rows}),
        clip=clip,
        nbytes=update.nbytes,
        upload=update.upload,
    )
    return Transition(
        accept(state, accepted, update.norm, now), (AcceptUpdate(accepted, update.norm),)
    )


def accept(
    state: CoordinatorState, update: BufferedUpdate, norm: float, now: float
) -> CoordinatorState:
    """The state after an update was accepted; recovery rebuilds it from the same rule."""
    client = replace(state.client(update.client_id), last=update.stats, strikes=0)
    return replace(
        state.without_task(update.task_id).with_client(update.client_id, client),
        buffer=(*state.buffer, update),
        buffered_at=state.buffered_at if state.buffer else now,
        norms=(*state.norms, norm * update.clip)[-NORM_HISTORY:],
    )


def _close(
    state: CoordinatorState,
    about: UpdateArrived | TaskRefused,
    reason: str,
    *,
    strikes: bool = True,
) -> Transition:
    client = state.client(about.client_id)
    if not strikes:
        return Transition(
            state.without_task(about.task_id),
            (CloseTask(about.task_id, about.client_id, reason, about.attempt),),
        )
    client = strike(client)
    after = state.without_task(about.task_id).with_client(about.client_id, client)
    done = Transition(after, (CloseTask(about.task_id, about.client_id, reason, about.attempt),))
    if client.strikes != STRIKES:
        return done
    text = f"{about.client_id} is quarantined: {STRIKES} refusals in a row, last: {reason}"
    return done.then(LogEvent("error", "quarantined", text[:500], (("client", about.client_id),)))


def strike(client: ClientState) -> ClientState:
    """One more refused or rejected update in a row."""
    return replace(client, strikes=client.strikes + 1)


def _refused(plan: Plan, state: CoordinatorState, event: TaskRefused, now: float) -> Transition:
    """Another worker may have what this one lacks: only a task that nobody can train is closed."""
    task, client = state.tasks.get(event.task_id), state.members(plan).get(event.client_id)
    if task is None or client is None or client.site != event.site:
        return Transition(
            state, (DiscardMessage("a refusal of a task that is not open at that site"),)
        )
    if task.client_id != event.client_id or event.attempt > task.attempt:
        return Transition(
            state, (DiscardMessage("a refusal of another client's task or of no attempt"),)
        )
    if event.attempt < task.attempt:
        return Transition(state)  # delivered twice, or overtaken: the task is out again already
    text = f"{event.client_id} cannot train {event.task_id}: {event.reason}"
    refs = (("client", event.client_id), ("task", event.task_id))
    told = LogEvent("warning", "refused", text[:500], refs)
    if task.refusals + 1 < REFUSALS:
        again = replace(task, refusals=task.refusals + 1, lease_until=now)
        return Transition(
            state.with_task(again), (told,)
        )  # its lease is over: issued again at once
    return _close(state, event, f"refused: {event.reason}"[:500]).then(told)


def _beats(plan: Plan, state: CoordinatorState, beats: HeartbeatsRead, now: float) -> Transition:
    if not beats.store_up:
        return Transition(replace(state, store_up=False))
    sites = MappingProxyType(Counter(signal.site for signal in beats.signals))
    busy = {signal.site for signal in beats.signals if signal.busy}
    named = {(signal.site, signal.task_id) for signal in beats.signals}
    members = state.members(plan)
    returned = not state.store_up  # leases could not be renewed meanwhile: all start afresh
    for task in state.tasks.values():
        site = members[task.client_id].site
        # A task waits in the queue for as long as a worker of its site is busy with another.
        trained = (site, task.task_id) in named
        if returned or trained or (site in busy and not task.parked):
            lease = now + plan.schedule.lease_s
            parked = task.parked and not trained
            state = state.with_task(replace(task, lease_until=lease, parked=parked))
    asked = {(signal.site, client) for signal in beats.signals for client in signal.wishes}
    wishes = frozenset(c for site, c in asked if c in members and members[c].site == site)
    return Transition(replace(state, sites=sites, wishes=wishes, store_up=True))


def _enrol(plan: Plan, state: CoordinatorState, event: EnrolmentRequested) -> Transition:
    if reason := admission.check_enrolment(plan, state, event):
        text = f"client {event.client_id} of site {event.site} may not join: {reason}"
        turned = DismissClient(event.client_id, event.site, reason, nonce=event.nonce)
        return Transition(state, (turned, LogEvent("warning", "join", text[:500])))
    rows = {kind: min(event.rows.get(kind, 0), event.max_rows) for kind in plan.kinds}
    client = Client(event.client_id, event.site, MappingProxyType(rows))
    known = state.joined.get(event.client_id)
    done = Transition(state.with_member(client), (AdmitClient(client, event.nonce),))
    if known == client:
        return done  # asked again: it has not seen the answer
    told = ", ".join(f"{count} {kind}" for kind, count in rows.items() if count)
    verb = "joins" if known is None else "comes back"
    text = f"{client.client_id} of site {client.site} {verb} with {told} rows"
    return done.then(LogEvent("info", "join", text, (("client", client.client_id),)))


def _leave(state: CoordinatorState, event: SiteRevoked) -> Transition:
    """Its open tasks are closed; what it sent before stays accepted, and is applied."""
    done = Transition(state)
    gone = [client for client in state.joined.values() if client.site == event.site]
    reason = f"site {event.site} was revoked"
    for client in gone:
        for task in state.tasks.values():
            if task.client_id == client.client_id:
                closed = CloseTask(task.task_id, task.client_id, reason)
                done = done.then(closed, state=done.state.without_task(task.task_id))
        dismissed = DismissClient(client.client_id, client.site, reason, left=True)
        done = done.then(dismissed, state=done.state.without_member(client.client_id))
    return done.then(LogEvent("warning", "revoked", reason))


def _rejection(update: UpdateArrived, reason: str) -> LogEvent:
    text = f"update of {update.client_id} rejected: {reason}"
    return LogEvent(
        "warning", "rejected", text[:500], (("client", update.client_id), ("task", update.task_id))
    )

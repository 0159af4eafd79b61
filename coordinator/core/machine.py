"""State machine of the coordinator, without I/O: (plan, state, event, now) → (state, actions).

It reads no clock and draws no random number, so the live service, the embedded demo and the tests
in virtual time run the same code. `coordinator/service.py` carries the actions out in order,
journal first.

Two settings make every mode: the buffer size K, and when to issue again. K = 1 is FedAsync; K > 1
with immediate reissue is FedBuff; K = concurrency with reissue after the commit is FedAvg.

An update arrives from `coordinator/ingest/ingest.py`; next on its path is
`coordinator/core/admission.py`.
"""

from __future__ import annotations

from dataclasses import replace

from common.protocol.kinds import EventKind, RejectionKind
from coordinator.core import (
    admission,
    commands,
    evaluation_answers,
    evaluations,
    membership,
    minimum,
    privacy,
    schedule,
    scores,
)
from coordinator.core.events import (
    MAX_TEXT,
    AcceptUpdate,
    CloseTask,
    CommandReceived,
    CommitVersion,
    CoordinatorEvent,
    DiscardMessage,
    DuplicateArrived,
    EnrolmentRequested,
    EvaluationArrived,
    FinishRun,
    HeartbeatsRead,
    LogEvent,
    Rejection,
    RepeatReceipt,
    ScoresArrived,
    SiteRevoked,
    StopRequested,
    TaskRefused,
    Tick,
    UpdateArrived,
    log_event,
)
from coordinator.core.leases import renew_leases
from coordinator.core.pace import Pace, measure
from coordinator.core.state import REFUSALS, STRIKES, BufferedUpdate, CoordinatorState, Plan
from coordinator.core.state_changes import accept_update, with_pace
from coordinator.core.transition import Transition


def step(plan: Plan, state: CoordinatorState, event: CoordinatorEvent, now: float) -> Transition:
    """Return the state after an event, and the actions that follow from it."""
    match event:
        case UpdateArrived():
            handled = _handle_update(plan, state, event, now)
        case DuplicateArrived():
            handled = Transition(state, (RepeatReceipt(event.task_id),))
        case TaskRefused():
            handled = _handle_refusal(plan, state, event, now)
        case EvaluationArrived():
            handled = evaluation_answers.handle_answer(plan, state, event)
        case ScoresArrived():
            handled = scores.handle_scores(plan, state, event)
        case HeartbeatsRead():
            handled = Transition(renew_leases(plan, state, event, now))
            if event.store_up:
                handled = minimum.report_shortage(plan, handled.state, now)
        case EnrolmentRequested():
            handled = membership.enrol(plan, state, event)
        case SiteRevoked():
            handled = membership.revoke_site(state, event)
        case CommandReceived():
            handled = commands.carry_out(plan, state, event.command, now)
        case StopRequested():
            handled = Transition(replace(state, stopping=True))
        case Tick():
            handled = Transition(state)
    return _advance(plan, handled, now)


def is_complete(plan: Plan, state: CoordinatorState, now: float) -> bool:
    """Return whether the last version is made, and its evaluation by the clients has ended."""
    made = state.version >= plan.total_versions
    return made and not state.rounds and not evaluations.due_rounds(plan, state, now)


def _advance(plan: Plan, done: Transition, now: float) -> Transition:
    """Commit if the buffer is ready; then finish if the run is over, else issue tasks."""
    if done.state.draining and schedule.drained(plan, done.state, now):
        done = done.then(state=replace(done.state, stopping=True))
    done = _then(done, scores.record_answered(plan, done.state))
    done = _then(done, schedule.commit_if_ready(plan, done.state, now))
    if _is_spent(plan, done):
        done = done.then(state=replace(done.state, stopping=True))
        done = _then(done, schedule.commit_if_ready(plan, done.state, now))
    if not done.state.stopping:
        due = evaluations.due_rounds(plan, done.state, now)
        done = _then(done, evaluations.open_rounds(done.state, due, now))
        done = _then(done, evaluations.close_rounds(plan, done.state, now))
    if is_complete(plan, done.state, now):
        return done.then(FinishRun(complete=True, reason="the plan is complete"))
    if done.state.stopping:
        return done.then(FinishRun(complete=False, reason=_stop_reason(plan, done.state)))
    trained = done.state.version >= plan.total_versions
    # In a run of sites only, others may still join.
    if not trained and plan.clients and not any(schedule.eligible_clients(plan, done.state)):
        reason = "every client is quarantined"
        return done.then(FinishRun(complete=False, reason=reason, failed=True))
    done = _then(done, evaluations.issue_evaluations(plan, done.state, now))
    if trained:
        return done
    done = _then(done, schedule.issue_tasks(plan, done.state, now))
    # The last open task of a drain may just have been parked, because its site is silent.
    over = done.state.draining and schedule.drained(plan, done.state, now)
    return _advance(plan, done, now) if over else done


def _then(done: Transition, following: Transition) -> Transition:
    return done.then(*following.actions, state=following.state)


def _is_spent(plan: Plan, done: Transition) -> bool:
    """Return whether the run ends because no client has privacy left to spend.

    A run of sites only ends with such a commit, and not when it is resumed: others may still join.
    """
    committed = any(isinstance(action, CommitVersion) for action in done.actions)
    may_end = bool(plan.clients) or committed
    return may_end and not done.state.stopping and privacy.is_exhausted(plan, done.state)


def _stop_reason(plan: Plan, state: CoordinatorState) -> str:
    reason = "drained on request" if state.draining else "stopped on request"
    if privacy.is_exhausted(plan, state):
        reason = privacy.exhaustion(plan)
    if not state.buffer:
        return reason
    count = len(state.buffer)
    updates = "update waits" if count == 1 else "updates wait"
    return f"{reason}; {count} {updates} for more live clients, and for a resume"


def _handle_update(
    plan: Plan, state: CoordinatorState, update: UpdateArrived, now: float
) -> Transition:
    decision = admission.decide(plan, state, update)
    rejection = decision.rejection
    if rejection is None:
        return _accept(plan, state, update, decision.clip, now)
    if rejection.kind is RejectionKind.STALE:  # the next one should not be, so its pace counts
        pace = _measure_pace(state, update, now)
        state = state.with_client(update.client_id, with_pace(state.client(update.client_id), pace))
    if decision.closes_task:
        closed = _close(state, update, rejection, counts_as_strike=decision.counts_as_strike)
        return closed.then(_rejection_event(update, rejection))
    return Transition(state, (DiscardMessage(rejection), _rejection_event(update, rejection)))


def _accept(
    plan: Plan, state: CoordinatorState, update: UpdateArrived, clip: float, now: float
) -> Transition:
    # Whatever a client claims, it weighs no more than the rows and steps that it was assigned.
    client = state.members(plan)[update.client_id]
    task = state.tasks[update.task_id]
    counted = {"num_samples": min(update.stats.num_samples, plan.rows(client, update.phase))}
    if task.steps:
        counted["steps"] = task.steps
    accepted = BufferedUpdate(
        task_id=update.task_id,
        attempt=update.attempt,
        client_id=update.client_id,
        worker_id=update.worker_id,
        base_version=update.base_version,
        stats=update.stats.model_copy(update=counted),
        clip=clip,
        nbytes=update.nbytes,
        upload=update.upload,
    )
    pace = _measure_pace(state, update, now)
    after = accept_update(state, accepted, update.norm, now, pace)
    return Transition(after, (AcceptUpdate(accepted, update.norm),))


def _measure_pace(state: CoordinatorState, update: UpdateArrived, now: float) -> Pace | None:
    """Return what an update took; None if steps do not depend on it, or it is not known."""
    task = state.tasks[update.task_id]
    if not task.steps or update.attempt != task.attempt:  # of an earlier one
        return None
    return measure(update.stats.train_seconds, task.steps, now - task.issued_at)


def _close(
    state: CoordinatorState,
    about: UpdateArrived | TaskRefused,
    rejection: Rejection,
    *,
    counts_as_strike: bool = True,
) -> Transition:
    """Close a task with a rejection; `STRIKES` of them in a row quarantine its client."""
    close = CloseTask(about.task_id, about.client_id, rejection, about.attempt)
    closed = Transition(state.without_task(about.task_id), (close,))
    if not counts_as_strike:
        return closed
    client = state.client(about.client_id)
    client = replace(client, strikes=client.strikes + 1)
    closed = closed.then(state=closed.state.with_client(about.client_id, client))
    if client.strikes != STRIKES:
        return closed
    text = (
        f"{about.client_id} is quarantined: {STRIKES} refusals in a row, last: {rejection.reason}"
    )
    return closed.then(log_event("error", EventKind.QUARANTINED, text, client=about.client_id))


def _handle_refusal(
    plan: Plan, state: CoordinatorState, event: TaskRefused, now: float
) -> Transition:
    """Issue the task again, since another worker may be able to train it, or close it.

    It is closed after `REFUSALS` refusals, or as many as its site has workers, because nobody seems
    able to train it.
    """
    if event.task_id in state.evaluations:
        return evaluation_answers.handle_refusal(plan, state, event)
    task, client = state.tasks.get(event.task_id), state.members(plan).get(event.client_id)
    if task is None or client is None or client.site != event.site:
        return _discard(state, "a refusal of a task that is not open at that site")
    if task.client_id != event.client_id or event.attempt > task.attempt:
        return _discard(state, "a refusal of another client's task or of no attempt")
    if event.attempt < task.attempt:
        return Transition(state)  # a duplicate, or overtaken: the task is issued again already
    refused = log_event(
        "warning",
        EventKind.REFUSED,
        f"{event.client_id} cannot train {event.task_id}: {event.reason}",
        client=event.client_id,
        task=event.task_id,
    )
    workers = state.workers_by_site.get(event.site, REFUSALS)  # without a heartbeat yet: unknown
    if task.refusals + 1 < min(REFUSALS, workers):
        again = replace(task, refusals=task.refusals + 1, lease_until=now)
        return Transition(state.with_task(again), (refused,))  # an expired lease: issued again
    rejection = Rejection(RejectionKind.REFUSED, f"refused: {event.reason}"[:MAX_TEXT])
    return _close(state, event, rejection).then(refused)


def _discard(state: CoordinatorState, reason: str) -> Transition:
    return Transition(state, (DiscardMessage(Rejection(RejectionKind.IDENTITY, reason)),))


def _rejection_event(update: UpdateArrived, rejection: Rejection) -> LogEvent:
    return log_event(
        "warning",
        EventKind.REJECTED,
        f"update of {update.client_id} rejected: {rejection.reason}",
        client=update.client_id,
        task=update.task_id,
        rejection=rejection.kind.value,
        reason=rejection.reason,
    )

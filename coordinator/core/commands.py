"""Commands of an operator: the change of state that each one makes, or a refusal."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import islice

from common.protocol.commands import Command
from common.protocol.kinds import EventKind, RejectionKind
from coordinator.core import evaluations, minimum, schedule
from coordinator.core.events import MAX_TEXT, CloseTask, Rejection, ReplyToCommand, log_event
from coordinator.core.state import STRIKES, CoordinatorState, OpenTask, Plan
from coordinator.core.transition import Transition


def carry_out(plan: Plan, state: CoordinatorState, command: Command, now: float) -> Transition:
    """Carry a command out or refuse it; either way there is one `ReplyToCommand`."""
    match command.action:
        case "pause":
            return _pause(state, command)
        case "resume":
            return _resume(state, command, now)
        case "drain":
            after = replace(state, draining=True, paused=False)
            resumed = False if state.paused else None
            return _confirm(after, command, "the run is drained", paused=resumed)
        case "stop":
            return _confirm(replace(state, stopping=True), command, "the run is stopped")
        case "kick":
            return _kick(plan, state, command)
        case "pardon":
            return _pardon(plan, state, command)
        case "reissue":
            return _reissue(state, command, now)
        case "min-clients":
            return _set_minimum(plan, state, command, now)
        case "evaluate":
            return _evaluate(plan, state, command, now)


def _pause(state: CoordinatorState, command: Command) -> Transition:
    if state.paused:
        return _refuse(state, command, "the run is paused")
    text = "the run is paused: no task is issued"
    return _confirm(replace(state, paused=True), command, text, paused=True)


def _resume(state: CoordinatorState, command: Command, now: float) -> Transition:
    if not state.paused:
        return _refuse(state, command, "the run is not paused")
    after = evaluations.restart_deadlines(replace(state, paused=False), now)
    return _confirm(after, command, "the run is resumed", paused=False)


def _kick(plan: Plan, state: CoordinatorState, command: Command) -> Transition:
    name = command.target
    if name not in state.members(plan):
        return _refuse(state, command, f"there is no client {name}")
    if state.client(name).quarantined:
        return _refuse(state, command, f"{name} already gets no more tasks")
    if plan.clients and [*islice(schedule.eligible_clients(plan, state), 2)] == [name]:
        return _refuse(state, command, f"{name} is the last client; `fccl stop` ends the run")
    after = state.with_client(name, replace(state.client(name), strikes=STRIKES))
    rejection = Rejection(RejectionKind.KICKED, f"{name} was kicked by {command.by}"[:MAX_TEXT])
    closed = [
        CloseTask(task.task_id, name, rejection)
        for task in state.tasks.values()
        if task.client_id == name
    ]
    for close in closed:
        after = after.without_task(close.task_id)
    evaluated = evaluations.close_evaluations_of(after, name, rejection)
    confirmed = _confirm(evaluated.state, command, f"{name} gets no more tasks")
    return confirmed.then(*closed, *evaluated.actions)


def _pardon(plan: Plan, state: CoordinatorState, command: Command) -> Transition:
    name = command.target
    if name not in state.members(plan):
        return _refuse(state, command, f"there is no client {name}")
    if not state.client(name).quarantined:
        return _refuse(state, command, f"{name} is not quarantined")
    after = state.with_client(name, replace(state.client(name), strikes=0))
    return _confirm(after, command, f"{name} gets tasks again")


def _reissue(state: CoordinatorState, command: Command, now: float) -> Transition:
    task = _find_task(state, command.target)
    if task is None:
        reason = f"{command.target} is neither an open task nor a client with one"
        return _refuse(state, command, reason)
    if state.paused:
        return _refuse(state, command, "the run is paused")
    after = state.with_task(replace(task, lease_until=now))  # an expired lease: issued again
    return _confirm(after, command, f"{task.task_id} of {task.client_id} is issued again")


def _set_minimum(plan: Plan, state: CoordinatorState, command: Command, now: float) -> Transition:
    number = _parse_number(command.target)
    if not number:
        reason = f"{command.target or 'nothing'} is not a number of clients, which is 1 or more"
        return _refuse(state, command, reason)
    after = replace(state, min_clients=number)
    text = f"the run needs {number} live {'client' if number == 1 else 'clients'}"
    reported = minimum.report_shortage(plan, after, now) if state.store_up else Transition(after)
    return _confirm(reported.state, command, text).then(*reported.actions)


def _evaluate(plan: Plan, state: CoordinatorState, command: Command, now: float) -> Transition:
    version = _parse_number(command.target) if command.target else state.version
    if version is None:
        return _refuse(state, command, f"{command.target} is not a version's number")
    if reason := _why_not_evaluated(plan, state, version, now):
        return _refuse(state, command, reason)
    opened = evaluations.open_rounds(state, [(version, plan.phase_before(version))], now)
    text = f"the clients evaluate version {version}"
    return _confirm(opened.state, command, text).then(*opened.actions)


def _why_not_evaluated(plan: Plan, state: CoordinatorState, version: int, now: float) -> str:
    if version > state.version:
        return f"there is no version {version} yet; the newest is {state.version}"
    bases = {base for task in state.tasks.values() for base in task.bases}
    usable = {state.version} | bases | evaluations.versions_needed(plan, state)
    if version not in usable:
        known = ", ".join(map(str, sorted(usable)))
        return f"version {version} is no longer available to workers; choose one of {known}"
    if not plan.evaluation.available:
        return "this run began with an earlier release, whose workers evaluate nothing"
    if any(each.version == version for each in state.rounds):
        return f"version {version} is being evaluated already"
    if state.paused or state.draining:
        return "the run is paused" if state.paused else "the run is drained"
    if not minimum.live_clients(plan, state, now):
        return f"no client is live; {minimum.describe_missing(plan, state, now)}"
    if not minimum.enough_clients(plan, state, now):
        needed = minimum.minimum(plan, state)
        missing = minimum.describe_missing(plan, state, now)
        return f"fewer than {needed} clients are live; {missing}"
    return ""


def _parse_number(text: str) -> int | None:
    """Return a number of at most six digits; None if the text is no such number."""
    return int(text) if re.fullmatch(r"[0-9]{1,6}", text) else None


def _find_task(state: CoordinatorState, name: str) -> OpenTask | None:
    """Return the open task with that id, or of the client with that name."""
    by_client = (task for task in state.tasks.values() if task.client_id == name)
    return state.tasks.get(name) or next(by_client, None)


def _confirm(
    state: CoordinatorState, command: Command, text: str, *, paused: bool | None = None
) -> Transition:
    by = f" (by {command.by})" if command.by else ""
    is_client = command.action not in ("min-clients", "evaluate")
    refs = {"client": command.target} if command.target and is_client else {}
    entry = log_event("warning", EventKind.COMMAND, f"{text}{by}", **refs)
    return Transition(state, (ReplyToCommand(command, paused=paused), entry))


def _refuse(state: CoordinatorState, command: Command, reason: str) -> Transition:
    return Transition(state, (ReplyToCommand(command, reason),))

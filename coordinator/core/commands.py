"""Commands of an operator: the change of state that each one makes, or a refusal."""

from __future__ import annotations

from dataclasses import replace

from common.protocol.commands import Command
from common.protocol.kinds import EventKind, RejectionKind
from coordinator.core import schedule
from coordinator.core.events import MAX_TEXT, CloseTask, Rejection, ReplyToCommand, log_event
from coordinator.core.state import STRIKES, CoordinatorState, OpenTask, Plan
from coordinator.core.transition import Transition


def carry_out(plan: Plan, state: CoordinatorState, command: Command, now: float) -> Transition:
    """Carry a command out or refuse it; either way there is one `ReplyToCommand`."""
    match command.action:
        case "pause":
            return _pause(state, command)
        case "resume":
            return _resume(state, command)
        case "drain":
            after = replace(state, draining=True, paused=False)
            return _confirm(after, command, "the run is drained")
        case "stop":
            return _confirm(replace(state, stopping=True), command, "the run is stopped")
        case "kick":
            return _kick(plan, state, command)
        case "pardon":
            return _pardon(plan, state, command)
        case "reissue":
            return _reissue(state, command, now)
        case "min-clients" | "evaluate":
            return _refuse(state, command, "this command comes with the next commit")


def _pause(state: CoordinatorState, command: Command) -> Transition:
    if state.paused:
        return _refuse(state, command, "the run is paused")
    text = "the run is paused: no task is issued"
    return _confirm(replace(state, paused=True), command, text, paused=True)


def _resume(state: CoordinatorState, command: Command) -> Transition:
    if not state.paused:
        return _refuse(state, command, "the run is not paused")
    return _confirm(replace(state, paused=False), command, "the run is resumed", paused=False)


def _kick(plan: Plan, state: CoordinatorState, command: Command) -> Transition:
    name = command.target
    if name not in state.members(plan):
        return _refuse(state, command, f"there is no client {name}")
    if state.client(name).quarantined:
        return _refuse(state, command, f"{name} already gets no more tasks")
    if schedule.eligible_clients(plan, state) == [name]:
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
    return _confirm(after, command, f"{name} gets no more tasks").then(*closed)


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


def _find_task(state: CoordinatorState, name: str) -> OpenTask | None:
    """Return the open task with that id, or of the client with that name."""
    by_client = (task for task in state.tasks.values() if task.client_id == name)
    return state.tasks.get(name) or next(by_client, None)


def _confirm(
    state: CoordinatorState, command: Command, text: str, *, paused: bool | None = None
) -> Transition:
    by = f" (by {command.by})" if command.by else ""
    refs = {"client": command.target} if command.target else {}
    entry = log_event("warning", EventKind.COMMAND, f"{text}{by}", **refs)
    return Transition(state, (ReplyToCommand(command, paused=paused), entry))


def _refuse(state: CoordinatorState, command: Command, reason: str) -> Transition:
    return Transition(state, (ReplyToCommand(command, reason),))

"""What an operator may ask of a run, decided without I/O. Part of `coordinator/core/machine.py`."""

from __future__ import annotations

from dataclasses import replace

from common.protocol.commands import Command
from coordinator.core import schedule
from coordinator.core.events import CloseTask, LogEvent, ReplyToCommand
from coordinator.core.state import STRIKES, CoordinatorState, OpenTask, Plan
from coordinator.core.transition import Transition


def carry_out(plan: Plan, state: CoordinatorState, command: Command, now: float) -> Transition:
    """Do it, or say why not; either way there is one `ReplyToCommand`."""
    match command.action:
        case "pause" | "resume":
            return _hold(state, command)
        case "drain":
            return _done(replace(state, draining=True, paused=False), command, "the run is drained")
        case "stop":
            return _done(replace(state, stopping=True), command, "the run is stopped")
        case "kick":
            return _kick(plan, state, command)
        case "pardon":
            return _pardon(plan, state, command)
        case "reissue":
            return _reissue(state, command, now)


def _hold(state: CoordinatorState, command: Command) -> Transition:
    wanted = command.action == "pause"
    if state.paused == wanted:
        return _refused(state, command, f"the run is {'' if wanted else 'not '}paused")
    text = "the run is paused: no task is issued" if wanted else "the run goes on"
    done = _done(replace(state, paused=wanted), command, text)
    reply = replace(_reply(done), paused=wanted)
    return Transition(done.state, (reply, *done.actions[1:]))


def _kick(plan: Plan, state: CoordinatorState, command: Command) -> Transition:
    name = command.target
    if name not in state.members(plan):
        return _refused(state, command, f"there is no client {name}")
    if state.client(name).quarantined:
        return _refused(state, command, f"{name} gets no more tasks already")
    if schedule.eligible_clients(plan, state) == [name]:
        return _refused(state, command, f"{name} is the last client; `fccl stop` ends the run")
    after = state.with_client(name, replace(state.client(name), strikes=STRIKES))
    closed = [
        CloseTask(task.task_id, name, f"{name} was kicked by {command.by}"[:500])
        for task in state.tasks.values()
        if task.client_id == name
    ]
    for each in closed:
        after = after.without_task(each.task_id)
    return _done(after, command, f"{name} gets no more tasks").then(*closed)


def _pardon(plan: Plan, state: CoordinatorState, command: Command) -> Transition:
    name = command.target
    if name not in state.members(plan):
        return _refused(state, command, f"there is no client {name}")
    if not state.client(name).quarantined:
        return _refused(state, command, f"{name} gets tasks as it is")
    after = state.with_client(name, replace(state.client(name), strikes=0))
    return _done(after, command, f"{name} gets tasks again")


def _reissue(state: CoordinatorState, command: Command, now: float) -> Transition:
    task = _task(state, command.target)
    if task is None:
        return _refused(state, command, f"{command.target} is no open task, nor a client with one")
    if state.paused:
        return _refused(state, command, "the run is paused")
    after = state.with_task(replace(task, lease_until=now))
    return _done(after, command, f"{task.task_id} of {task.client_id} is issued again")


def _task(state: CoordinatorState, name: str) -> OpenTask | None:
    found = state.tasks.get(name)
    return found or next((t for t in state.tasks.values() if t.client_id == name), None)


def _done(state: CoordinatorState, command: Command, text: str) -> Transition:
    by = f" (by {command.by})" if command.by else ""
    refs = (("client", command.target),) if command.target else ()
    return Transition(
        state, (ReplyToCommand(command), LogEvent("warning", "command", f"{text}{by}"[:500], refs))
    )


def _refused(state: CoordinatorState, command: Command, why: str) -> Transition:
    return Transition(state, (ReplyToCommand(command, why),))


def _reply(done: Transition) -> ReplyToCommand:
    return next(action for action in done.actions if isinstance(action, ReplyToCommand))

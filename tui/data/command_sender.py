"""Commands to the coordinator, each sent and followed by a thread of its own.

A command counts as *requested* until the coordinator has answered; the screen never shows it as
done before.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from common.errors import StoreError
from common.protocol import commands
from common.protocol.commands import Command, CommandName
from common.store.store import Store
from tui.banner import Level

POLL_S = 0.25
ANSWER_EXPECTED_S = 15.0  # the coordinator reads commands every second
WITHDRAW_AFTER_S = 60.0  # a late answer still counts until then
OUTCOME_SHOWN_S = 8.0

CommandState = Literal["requested", "done", "refused", "unsent", "unanswered"]


@dataclass(frozen=True)
class SentCommand:
    """A command and its outcome; times are on the monotonic clock.

    Its state is `unsent` if the store did not take it, `unanswered` if it was withdrawn.
    """

    action: CommandName
    target: str  # a client or a task; empty for the whole run
    sent_at: float
    state: CommandState = "requested"
    state_since: float = 0.0
    reason: str = ""  # given by the coordinator or the store


def status_line(command: SentCommand, now: float) -> tuple[Level, str] | None:
    """Return the level and the line to show, or None once the outcome was shown long enough."""
    name = f"{command.action} {command.target}".strip()
    age = now - command.sent_at
    if command.state == "requested" and age < ANSWER_EXPECTED_S:
        return "note", f"{name}: requested {age:.0f} s ago"
    if command.state == "requested":
        return "warning", f"{name}: no answer from the coordinator for {age:.0f} s"
    if now - command.state_since > OUTCOME_SHOWN_S:
        return None
    match command.state:
        case "done":
            return "note", f"{name}: done" + (f", {command.reason}" if command.reason else "")
        case "refused":
            return "error", f"{name}: refused: {command.reason}"
        case "unsent":
            return "error", f"{name}: not sent: {command.reason}"
        case _:
            return "warning", f"{name}: withdrawn, because the coordinator did not answer"


class CommandSender:
    """Commands of this session. No method waits."""

    def __init__(self, connect: Callable[[], Store]) -> None:
        """Create a sender; `connect` opens the store or raises `StoreError`."""
        self._connect = connect
        self._commands: dict[int, SentCommand] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def send(self, run: str, action: CommandName, target: str = "") -> None:
        with self._lock:
            number = max(self._commands, default=0) + 1
            self._commands[number] = SentCommand(action, target, time.monotonic())
        threading.Thread(target=self._follow, args=(number, run), daemon=True).start()

    def status_lines(self, now: float) -> list[tuple[Level, str]]:
        """Return the lines to show, and forget commands whose outcome was shown long enough."""
        with self._lock:
            lines = {number: status_line(each, now) for number, each in self._commands.items()}
            shown = {n: each for n, each in self._commands.items() if lines[n] is not None}
            self._commands = shown
        return [line for line in lines.values() if line is not None]

    def close(self) -> None:
        """Stop following commands; those that were sent stay sent."""
        self._closed.set()

    def _follow(self, number: int, run: str) -> None:
        sent = self._commands[number]
        try:
            store = self._connect()
            command = commands.send(store, run, sent.action, sent.target)
        except StoreError as error:
            self._set_state(number, "unsent", error.what)
            return
        while time.monotonic() < sent.sent_at + WITHDRAW_AFTER_S:
            if self._closed.wait(POLL_S):
                return  # not withdrawn: a user who quits after a command still wants it
            try:
                answer = commands.read_reply(store, run, command.command_id)
            except StoreError:  # shown by the banner; the command is in the store all the same
                continue
            if answer is not None:
                self._set_state(number, answer.state, answer.reason)
                return
        self._withdraw(store, run, command)
        self._set_state(number, "unanswered", "")

    def _withdraw(self, store: Store, run: str, command: Command) -> None:
        # A command left in the store would be carried out whenever a coordinator comes back.
        with contextlib.suppress(StoreError):
            commands.withdraw(store, run, command)

    def _set_state(self, number: int, state: CommandState, reason: str) -> None:
        with self._lock:
            changed = replace(
                self._commands[number], state=state, state_since=time.monotonic(), reason=reason
            )
            self._commands[number] = changed

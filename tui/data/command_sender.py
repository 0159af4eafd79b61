"""Orders to the coordinator: sent and followed from threads of their own, told on one line each.

An order is *requested* until the coordinator has answered: nothing here pretends that it was done.
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
ANSWER_EXPECTED_S = 15.0  # the coordinator looks every second
WITHDRAW_AFTER_S = 60.0  # a late answer is an answer, too; then it is withdrawn
OUTCOME_SHOWN_S = 8.0  # how long an outcome stays on the screen

DESTRUCTIVE: frozenset[CommandName] = frozenset({"stop", "drain", "kick"})


@dataclass(frozen=True)
class SentCommand:
    """What was asked, and what came of it.

    Attributes:
        action: To be done.
        target: A client or a task, or nothing for the whole run.
        asked: When, on the monotonic clock.
        state: `unsent` where the store did not take it, `unanswered` when nobody waits any more.
        since: When it came into this state.
        reason: The coordinator's, or the store's.
    """

    action: CommandName
    target: str
    asked: float
    state: Literal["requested", "done", "refused", "unsent", "unanswered"] = "requested"
    since: float = 0.0
    reason: str = ""


def status_line(order: SentCommand, now: float) -> tuple[Level, str] | None:
    """How serious it is, and the line; None once it has been shown long enough. Pure.

    Args:
        order: To tell of.
        now: On the monotonic clock.
    """
    name = f"{order.action} {order.target}".strip()
    age = now - order.asked
    if order.state == "requested" and age < ANSWER_EXPECTED_S:
        return "note", f"{name}: requested {age:.0f} s ago"
    if order.state == "requested":
        return "warning", f"{name}: no answer from the coordinator for {age:.0f} s"
    if now - order.since > OUTCOME_SHOWN_S:
        return None
    match order.state:
        case "done":
            return "note", f"{name}: done" + (f", {order.reason}" if order.reason else "")
        case "refused":
            return "error", f"{name}: refused: {order.reason}"
        case "unsent":
            return "error", f"{name}: not sent: {order.reason}"
        case _:
            return "warning", f"{name}: withdrawn, no answer from the coordinator"


class CommandSender:
    """The orders of this session. No method waits."""

    def __init__(self, connect: Callable[[], Store]) -> None:
        """Nothing is sent yet.

        Args:
            connect: Opens the store, or raises `StoreError`.
        """
        self._connect = connect
        self._orders: dict[int, SentCommand] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def order(self, run: str, action: CommandName, target: str = "") -> None:
        """Send an order to the coordinator of a run."""
        with self._lock:
            number = max(self._orders, default=0) + 1
            self._orders[number] = SentCommand(action, target, time.monotonic())
        threading.Thread(target=self._follow, args=(number, run), daemon=True).start()

    def lines(self, now: float) -> list[tuple[Level, str]]:
        """What to tell; what has been told long enough is forgotten."""
        with self._lock:
            lines = {number: status_line(order, now) for number, order in self._orders.items()}
            self._orders = {n: order for n, order in self._orders.items() if lines[n] is not None}
        return [line for line in lines.values() if line is not None]

    def close(self) -> None:
        """Follow no more; what was sent stays sent."""
        self._closed.set()

    def _follow(self, number: int, run: str) -> None:
        order = self._orders[number]
        try:
            store = self._connect()
            command = commands.send(store, run, order.action, order.target)
        except StoreError as error:
            self._became(number, "unsent", error.what)
            return
        while time.monotonic() < order.asked + WITHDRAW_AFTER_S and not self._closed.wait(POLL_S):
            try:
                answer = commands.read_reply(store, run, command.command_id)
            except StoreError:  # the banner says so; the command is sent all the same
                continue
            if answer is not None:
                self._became(number, answer.state, answer.reason)
                return
        if not self._closed.is_set():
            self._withdraw(store, run, command)
            self._became(number, "unanswered", "")

    def _withdraw(self, store: Store, run: str, command: Command) -> None:
        # Left there, it would be carried out whenever a coordinator comes back. Who quits this
        # screen right after an order still wants it.
        with contextlib.suppress(StoreError):
            commands.withdraw(store, run, command)

    def _became(
        self, number: int, state: Literal["done", "refused", "unsent", "unanswered"], reason: str
    ) -> None:
        with self._lock:
            changed = replace(
                self._orders[number], state=state, since=time.monotonic(), reason=reason
            )
            self._orders[number] = changed

"""`fccl try` in a terminal: answer a text, take a correction or a rating, and say what became of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import click
from rich.console import Console

from cli.learn.answers import Answers, blocks, choose_label, clean, numbered
from cli.learn.location import InboxLocation
from common.errors import DataError
from worker.incremental.inbox import items
from worker.incremental.inbox.inbox import Inbox, ItemStatus
from worker.incremental.inbox.items import Item

WAIT_S = 120.0
"""Longest wait for an item that a running worker has not processed: a long step, or other items."""
POLL_S = 0.1
SLOW = "the worker has not processed it yet, and will learn it later"

ReadLine = Callable[[str], str]
"""Reads a line after a prompt; raises EOFError at the end of the input."""
pause = time.sleep


class Conversation:
    """Dialogue with one client's model; corrections go into its inbox, in the stream `task`."""

    def __init__(
        self,
        location: InboxLocation,
        answer: Callable[[str], Answers],
        read_line: ReadLine,
        task: str,
    ) -> None:
        self._location, self._answer = location, answer
        self._read_line, self._task = read_line, task

    def run(self) -> None:
        """Take turns until the user ends the conversation with Ctrl-D or Ctrl-C."""
        with suppress(EOFError, KeyboardInterrupt):
            while True:
                click.echo()
                if text := self._read_line("> ").strip():
                    self._turn(text)
        click.echo()

    def _turn(self, text: str) -> None:
        answers = self._answer(text)
        show(answers)
        try:
            item = self._read_correction(answers)
            if item is None:
                return
            with Inbox(self._location.path, self._location.limits) as inbox:
                stored = inbox.put([item], source="try")
        except DataError as error:  # the correction is not valid, or the inbox is full
            click.echo(f"refused: {error}")
            return
        if not stored.new:
            click.echo("it is in the inbox already")
        if self._report_status(item):
            show(self._answer(text))

    # the correction

    def _read_correction(self, answers: Answers) -> Item | None:
        if answers.model.objective == "classification":
            label = self._read_label(answers)
            return None if label is None else self._item(answers, text=answers.text, label=label)
        choice = "1 or 2 if that one is better; or" if answers.second else "or"
        click.echo(f"[Enter] if it is right; {choice} type a better answer:")
        word = self._read_line("? ").strip()
        if answers.second and word in ("1", "2"):
            better, worse = answers.client.text, answers.second.text
            if word == "2":
                better, worse = worse, better
            return self._item(answers, prompt=answers.text, chosen=better, rejected=worse)
        return self._item(answers, instruction=answers.text, output=word) if word else None

    def _read_label(self, answers: Answers) -> str | None:
        labels = answers.model.labels
        click.echo(f"[Enter] if it is right; or the right class: {numbered(labels)}")
        while word := self._read_line("? ").strip():
            if (label := choose_label(word, labels)) is not None:
                return label
            click.echo("there is no such class")
        return None

    def _item(self, answers: Answers, **record: str) -> Item:
        fields: Mapping[str, object] = record
        limit = self._location.limits.max_chars
        return items.parse(fields, max_chars=limit, labels=answers.model.labels, task=self._task)

    # its status

    def _report_status(self, item: Item) -> bool:
        """Wait until the item is processed, print its status, and return whether it was learned."""
        try:
            with Console(stderr=True).status("in the inbox, waiting for the worker …"):
                status = self._wait(item)
        except KeyboardInterrupt:  # ends the waiting, not the conversation
            click.echo("\nno longer waiting; it stays in the inbox")
            return False
        click.echo(self._describe(status))
        return status is not None and status.learned

    def _wait(self, item: Item) -> ItemStatus | None:
        deadline = time.monotonic() + WAIT_S
        with Inbox(self._location.path, self._location.limits) as inbox:
            while True:
                status = inbox.status(item)
                if status is None or status.decided or time.monotonic() > deadline:
                    return status
                if self._location.why_waiting():
                    return status
                pause(POLL_S)

    def _describe(self, status: ItemStatus | None) -> str:
        if status is None:
            return "it was removed from the inbox"
        if not status.decided:
            return f"in the inbox: {self._location.why_waiting() or SLOW}"
        if status.learned:
            return "learned; now:"
        return clean(f"not learned: {status.reason or status.state}")


def show(answers: Answers) -> None:
    for block in blocks(answers):
        click.echo("  " + block.replace("\n", "\n  "))

"""`fccl try` in a terminal: answer a text, take a correction or a rating, and print its outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import click
from rich.console import Console

from cli.learn.answers import Answers, blocks, choose_label, clean, numbered
from cli.learn.location import InboxLocation
from cli.signals import Terminated
from common.errors import DataError
from worker.incremental.inbox import record_parser
from worker.incremental.inbox.inbox import Inbox, ItemStatus
from worker.incremental.inbox.items import BAD, GOOD, Item

WAIT_S = 120.0
"""Longest wait for an item that a running worker has not processed: a long step, or other items."""
POLL_S = 0.1
THUMBS = {"+": GOOD, "-": BAD}
"""What rates an answer, or both of two."""
SLOW = "the worker has not processed it yet, and will learn it later"

ReadLine = Callable[[str], str]
"""Reads a line after a prompt; raises EOFError at the end of the input."""
pause = time.sleep


class Conversation:
    """Dialogue with one client's model; corrections and ratings go into its inbox, in a stream."""

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
        try:
            while True:
                click.echo()
                if text := self._read_line("> ").strip():
                    self._turn(text)
        except Terminated:
            raise
        except (EOFError, KeyboardInterrupt):
            click.echo()

    def _turn(self, text: str) -> None:
        answers = self._answer(text)
        show(answers)
        try:
            items = self._read_feedback(answers)
            if not items:
                return
            with Inbox(self._location.path, self._location.limits) as inbox:
                stored = inbox.put(items, source="try")
        except DataError as error:  # an item is not valid, or the inbox is full
            click.echo(f"refused: {error}")
            return
        if not stored.new:
            click.echo("it is in the inbox already")
        if self._report_status(items):
            show(self._answer(text))

    # the correction or rating

    def _read_feedback(self, answers: Answers) -> list[Item]:
        """Return what the user has to say: nothing, one item, or a rating of each of two answers.

        Raises:
            DataError: It is not a valid item, or the run does not learn its kind.
        """
        if answers.model.objective == "classification":
            label = self._read_label(answers)
            return [] if label is None else [self._item(answers, text=answers.text, label=label)]
        both = answers.second is not None
        click.echo(
            "[Enter] if it is right; "
            + ("1 or 2 if that one is better; " if both else "")
            + f"+ or - to rate {'both' if both else 'it'}; or type a better answer:"
        )
        word = self._read_line("? ").strip()
        if answers.second and word in ("1", "2"):
            better, worse = answers.client.text, answers.second.text
            if word == "2":
                better, worse = worse, better
            return [self._item(answers, prompt=answers.text, chosen=better, rejected=worse)]
        if word in THUMBS:
            return self._ratings(answers, THUMBS[word])
        return [self._item(answers, instruction=answers.text, output=word)] if word else []

    def _ratings(self, answers: Answers, label: str) -> list[Item]:
        given = [answers.client.text, *([answers.second.text] if answers.second else [])]
        rated = [text for text in given if text.strip()]
        if not rated:
            raise DataError("an empty answer cannot be rated", "type a better one")
        return [
            self._item(answers, prompt=answers.text, completion=text, label=label) for text in rated
        ]

    def _read_label(self, answers: Answers) -> str | None:
        labels = answers.model.labels
        click.echo(f"[Enter] if it is right; or the right class: {numbered(labels)}")
        while word := self._read_line("? ").strip():
            if (label := choose_label(word, labels)) is not None:
                return label
            if word in THUMBS:
                click.echo("this model classifies and takes no ratings; give the right class")
            else:
                click.echo("there is no such class")
        return None

    def _item(self, answers: Answers, **record: str) -> Item:
        location, fields = self._location, dict[str, object](record)
        return record_parser.parse(
            fields,
            max_chars=location.limits.max_chars,
            labels=answers.model.labels,
            kinds=location.served.kinds if location.served else (),
            task=self._task,
        )

    # its status

    def _report_status(self, items: Sequence[Item]) -> bool:
        """Wait until items are processed, print their status; return whether one was learned."""
        try:
            with Console(stderr=True).status("in the inbox, waiting for the worker …"):
                found = [self._wait(item) for item in items]
        except Terminated:
            raise
        except KeyboardInterrupt:  # ends the waiting, not the conversation
            click.echo("\nno longer waiting; it stays in the inbox")
            return False
        found.sort(key=_is_learned)  # "now:" is followed by the new answer
        for description in dict.fromkeys(map(self._describe, found)):
            click.echo(description)
        return _is_learned(found[-1])

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


def _is_learned(status: ItemStatus | None) -> bool:
    return status is not None and status.learned


def show(answers: Answers) -> None:
    for block in blocks(answers):
        click.echo("  " + block.replace("\n", "\n  "))

"""`fccl try` in a terminal: ask, look, correct, see what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress

import click
from rich.console import Console

from cli.learn.answers import Answers, blocks, chosen, clean, numbered
from cli.learn.location import InboxLocation
from common.errors import DataError
from worker.incremental.inbox import item_status, items
from worker.incremental.inbox.inbox import Inbox
from worker.incremental.inbox.item_status import ItemStatus
from worker.incremental.inbox.items import Item

WAIT_S = 120.0
"""For an item that a running worker has not come to: a long step, or other clients' items."""
POLL_S = 0.1
SLOW = "the worker has not come to it yet; it is learned when it does"

Ask = Callable[[str], str]
"""(prompt) → a line; EOFError at the end of the input."""
pause = time.sleep


class Conversation:
    """With one client's model."""

    def __init__(
        self, door: InboxLocation, answer: Callable[[str], Answers], ask: Ask, task: str
    ) -> None:
        """Nothing is said yet.

        Args:
            door: Whose inbox takes corrections.
            answer: Asks the model, as it is by then.
            ask: Reads a line.
            task: The stream of the corrections.
        """
        self._door, self._answer, self._ask, self._task = door, answer, ask, task

    def hold(self) -> None:
        """Until the user ends it, with Ctrl-D or Ctrl-C."""
        with suppress(EOFError, KeyboardInterrupt):
            while True:
                click.echo()
                if text := self._ask("> ").strip():
                    self._turn(text)
        click.echo()

    def _turn(self, text: str) -> None:
        """One text, and its correction if there is one."""
        said = self._answer(text)
        show(said)
        try:
            item = self._corrected(said)
            if item is None:
                return
            with closing(Inbox(self._door.path, self._door.limits)) as inbox:
                taken = inbox.put([item], source="try")
        except DataError as error:  # what was typed is refused, or the inbox is full
            click.echo(f"not taken: {error}")
            return
        if not taken.new:
            click.echo("the inbox has it already")
        if self._learned(item):
            show(self._answer(text))

    # what the user says of it

    def _corrected(self, said: Answers) -> Item | None:
        if said.model.objective == "classification":
            label = self._label(said)
            return None if label is None else self._item(said, text=said.asked, label=label)
        ways = "1 or 2: that is better; or" if said.second else "or"
        click.echo(f"[Enter]: it is right; {ways} a better answer:")
        word = self._ask("? ").strip()
        if said.second and word in ("1", "2"):
            better, worse = said.mine.text, said.second.text
            if word == "2":
                better, worse = worse, better
            return self._item(said, prompt=said.asked, chosen=better, rejected=worse)
        return self._item(said, instruction=said.asked, output=word) if word else None

    def _label(self, said: Answers) -> str | None:
        labels = said.model.labels
        click.echo(f"[Enter]: it is right; or what is right: {numbered(labels)}")
        while word := self._ask("? ").strip():
            if (label := chosen(word, labels)) is not None:
                return label
            click.echo("there is no such class")
        return None

    def _item(self, said: Answers, **record: str) -> Item:
        fields: Mapping[str, object] = record
        limit = self._door.limits.max_chars
        labels = said.model.labels
        return items.parse(fields, max_chars=limit, labels=labels, task=self._task)

    # what becomes of it

    def _learned(self, item: Item) -> bool:
        """Wait for it, and say what became of the item."""
        try:
            with Console(stderr=True).status("in the inbox, waits for the worker …"):
                found = self._fate(item)
        except KeyboardInterrupt:  # of waiting, not of the conversation
            click.echo("\nin the inbox; not waited for")
            return False
        click.echo(self._told(found))
        return found is not None and found.learned

    def _fate(self, item: Item) -> ItemStatus | None:
        until = time.monotonic() + WAIT_S
        while True:
            found = item_status.look(self._door.path, item.key)
            if found is None or found.decided or time.monotonic() > until:
                return found
            if self._door.why_waiting():
                return found
            pause(POLL_S)

    def _told(self, found: ItemStatus | None) -> str:
        if found is None:
            return "somebody has removed it from the inbox"
        if not found.decided:
            return f"in the inbox: {self._door.why_waiting() or SLOW}"
        if found.learned:
            return "learned; now:"
        return clean(f"not learned: {found.reason or found.state}")


def show(said: Answers) -> None:
    """On the terminal."""
    for block in blocks(said):
        click.echo("  " + block.replace("\n", "\n  "))

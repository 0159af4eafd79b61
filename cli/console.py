"""Output of long commands: a progress bar in a terminal, otherwise plain lines or JSON."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cli.jsonlog import JsonLog
from common.protocol.feed import Event
from common.text import one_line
from tui.formatting import format_event

STEP = 0.25  # plain lines report progress in quarters
WARNINGS = ("waiting", "refused", "rejected")
"""Kinds of this process's own events that are warnings."""


def can_draw(environment: Mapping[str, str]) -> bool:
    """Return whether the terminal can move its cursor, so that a screen or a bar can be drawn."""
    return environment.get("TERM", "") not in ("", "dumb", "unknown")


class Output:
    """The output of one command. Methods may be called from several threads.

    Args:
        plain: Print plain lines also in a terminal.
        log: Where to write JSON instead of lines.
    """

    def __init__(self, plain: bool, log: JsonLog | None = None) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self._log = log
        self.live = not plain and log is None and self.console.is_terminal and can_draw(os.environ)
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._printed_progress: tuple[str, int] = ("", -1)

    def print(self, text: str) -> None:
        if self._log is not None:
            self._log.write("info", "text", text)
            return
        text = "\n".join(map(one_line, text.split("\n")))  # a name or a path may have escapes
        if self.live:
            self.console.print(text, markup=False, emoji=False)
        else:
            print(text, flush=True)

    def print_markdown(self, text: str) -> None:
        if self.live:
            self.console.print(Markdown(text))
        else:
            self.print(text)

    def print_event(self, event: Event) -> None:
        """Print an event of the feed as one line."""
        if self._log is None:
            self.print(format_event(event))
        else:
            self._log.write(event.level, event.kind, event.text, event.refs, event.at)

    def event(self, kind: str, text: str) -> None:
        """Print something that happened in this process, in the form of the feed."""
        level = "warning" if kind in WARNINGS else "info"
        fields = {"at": time.time(), "level": level, "kind": kind, "text": text[:500]}
        self.print_event(Event.model_validate(fields))

    def set_context(self, **names: object) -> None:
        """Add keys, such as the run and the site, to every JSON line from now on."""
        if self._log is not None:
            self._log.set_context(**names)

    def progress(self, message: str, fraction: float) -> None:
        """Show the progress of a long step, such as fetching a model."""
        message = one_line(message)
        if self.live:
            self._show_bar(message, fraction)
            return
        quarter = int(fraction / STEP)
        if self._printed_progress != (message, quarter):
            self._printed_progress = (message, quarter)
            if self._log is None:
                self.print(f"{message}: {fraction:.0%}")
            else:
                self._log.write("info", "progress", message, {"progress": round(fraction, 3)})

    def end_progress(self) -> None:
        """Leave the last state of the progress bar on the screen."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _show_bar(self, message: str, fraction: float) -> None:
        if self._progress is None:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TimeElapsedColumn(),
            )
            self._progress = Progress(*columns, console=self.console)
            self._task = self._progress.add_task(message, total=1.0)
            self._progress.start()
        self._progress.update(self._task, description=message, completed=fraction)

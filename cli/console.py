"""What long commands print: a progress bar on a terminal, plain lines elsewhere, or JSON."""

from __future__ import annotations

import time

from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cli.jsonlog import JsonLog
from common.protocol.feed import Event
from tui.formatting import format_event

STEP = 0.25  # plain lines tell of progress in quarters


class Output:
    """One command's output. Methods may be called from several threads."""

    def __init__(self, plain: bool, log: JsonLog | None = None) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self._log = log
        self.live = not plain and log is None and self.console.is_terminal
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._told: tuple[str, int] = ("", -1)

    def print(self, text: str) -> None:
        """One line."""
        if self._log is not None:
            self._log.write("info", "text", text)
        elif self.live:
            self.console.print(text, markup=False)
        else:
            print(text, flush=True)

    def print_event(self, event: Event) -> None:
        """One event of the feed as a line."""
        if self._log is None:
            self.print(format_event(event))
        else:
            self._log.write(event.level, event.kind, event.text, event.refs, event.at)

    def print_markdown(self, text: str) -> None:
        """A text in Markdown."""
        if self.live:
            self.console.print(Markdown(text))
        else:
            self.print(text)

    def set_context(self, **names: object) -> None:
        """Name the run, the site … in every line of JSON from now on."""
        if self._log is not None:
            self._log.set_context(**names)

    def event(self, kind: str, text: str) -> None:
        """Something that happened in this process, in the feed's form."""
        level = "warning" if kind in ("waiting", "refused", "rejected") else "info"
        self.print_event(Event.model_validate(_event(level, kind, text)))

    def progress(self, message: str, fraction: float) -> None:
        """Progress of something long: a model that is made or fetched."""
        if self.live:
            self._bar(message, fraction)
            return
        quarter = int(fraction / STEP)
        if self._told != (message, quarter):
            self._told = (message, quarter)
            if self._log is None:
                self.print(f"{message}: {fraction:.0%}")
            else:
                self._log.write("info", "progress", message, {"progress": round(fraction, 3)})

    def end_progress(self) -> None:
        """Leave the last state of the progress bar on the screen."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _bar(self, message: str, fraction: float) -> None:
        if self._progress is None:
            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
            self._progress = Progress(*columns, console=self.console)
            self._task = self._progress.add_task(message, total=1.0)
            self._progress.start()
        self._progress.update(self._task, description=message, completed=fraction)


def _event(level: str, kind: str, text: str) -> dict[str, object]:
    return {"at": time.time(), "level": level, "kind": kind, "text": text[:500]}

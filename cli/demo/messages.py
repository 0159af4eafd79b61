"""Messages from the process of the federation to the process that owns the terminal.

One JSON object per line. `cli/demo/child.py` sends them, `cli/demo/process.py` reads them.
"""

from __future__ import annotations

import contextlib
import threading
from enum import StrEnum
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel

from cli.console import Output
from common.protocol.feed import Event

LOG = "demo.log"  # in the run directory: what libraries print while the screen is shown


class MessageKind(StrEnum):
    """Kind of a message."""

    TEXT = "text"
    MARKDOWN = "markdown"
    EVENT = "event"
    PROGRESS = "progress"
    PROGRESS_END = "progress-end"
    STARTED = "started"  # the run can be watched at `url`
    FINISHED = "finished"  # the run is over; `text` sums it up in a line
    ERROR = "error"  # `text` is the line to print; the exit code says the rest


class DemoMessage(BaseModel, frozen=True):
    """A message; which fields it has depends on its kind."""

    kind: MessageKind
    text: str = ""
    event: Event | None = None
    fraction: float = 0.0
    url: str = ""
    directory: Path = Path()


class MessageOutput(Output):
    """Output of a command as messages. Methods may be called from several threads."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(plain=True)
        self._stream = stream
        self._lock = threading.RLock()  # a signal handler may interrupt its own thread
        self._last_progress: tuple[str, int] = ("", -1)

    def send(self, message: DemoMessage) -> None:
        """Write a message; do nothing if the other process is gone."""
        line = message.model_dump_json(exclude_defaults=True) + "\n"
        with self._lock, contextlib.suppress(OSError):
            self._stream.write(line)
            self._stream.flush()

    def print(self, text: str) -> None:
        """Send a line."""
        self.send(DemoMessage(kind=MessageKind.TEXT, text=text))

    def print_event(self, event: Event) -> None:
        """Send an event."""
        self.send(DemoMessage(kind=MessageKind.EVENT, event=event))

    def print_markdown(self, text: str) -> None:
        """Send a text in Markdown."""
        self.send(DemoMessage(kind=MessageKind.MARKDOWN, text=text))

    def progress(self, message: str, fraction: float) -> None:
        """Send the progress of something long, once per percent."""
        percent = int(fraction * 100)
        if self._last_progress != (message, percent):
            self._last_progress = (message, percent)
            self.send(DemoMessage(kind=MessageKind.PROGRESS, text=message, fraction=fraction))

    def end_progress(self) -> None:
        """Send the end of the progress."""
        self.send(DemoMessage(kind=MessageKind.PROGRESS_END))

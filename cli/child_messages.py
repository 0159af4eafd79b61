"""Child processes of a command, and their messages: one JSON object per line of standard output.

The children of `fccl coordinator` (`cli/run/child_main.py`) and of `fccl demo`
(`cli/demo/child.py`) write the messages with `MessageOutput`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cli.console import Output
from cli.jsonlog import JsonLog
from common.environment import without_logins
from common.protocol.feed import Event


class MessageKind(StrEnum):
    """Kind of a message."""

    TEXT = "text"
    MARKDOWN = "markdown"
    EVENT = "event"
    PROGRESS = "progress"
    PROGRESS_END = "progress-end"
    ERROR = "error"
    CRASH = "crash"
    STDOUT = "stdout"  # printed by a library
    STDERR = "stderr"
    RESULT = "result"  # of a task of the coordinator
    SAMPLE = "sample"
    NOTE = "note"  # a log event about samples or scores
    SCORE = "score"  # of an update
    FIGURES = "figures"  # of a version, by a plug-in evaluator
    STARTED = "started"  # the demo's run can be watched at `url`
    FINISHED = "finished"  # the demo's run is over; the text sums it up in a line


@dataclass(frozen=True)
class ChildMessage:
    """A message of a child process; `fields` has further keys, which depend on the kind."""

    kind: MessageKind
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)


def parse_message(line: bytes) -> ChildMessage:
    """Parse one line of output; a line that is no message was printed by C code."""
    text = line.decode("utf-8", "backslashreplace").rstrip()
    try:
        fields = json.loads(text)
        return ChildMessage(MessageKind(fields["kind"]), str(fields["message"]), fields)
    except (ValueError, KeyError, TypeError):
        return ChildMessage(MessageKind.STDERR, text)


def open_child(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a Python module in a session of its own, where no key of the terminal reaches it.

    It gets no address of the servers: no child connects to them.
    """
    # -P: modules in the working directory are not part of the program.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        env=without_logins(os.environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


class MessageOutput(Output):
    """Output of a child process as messages. Methods may be called from several threads."""

    def __init__(self, log: JsonLog) -> None:
        super().__init__(plain=True)
        self._messages = log

    def send(self, kind: MessageKind, text: str = "", level: str = "info", **fields: Any) -> None:
        """Write a message; do nothing if the parent is gone."""
        with contextlib.suppress(OSError):
            self._messages.write(level, kind, text, fields)

    def print(self, text: str) -> None:
        self.send(MessageKind.TEXT, text)

    def print_event(self, event: Event) -> None:
        self.send(MessageKind.EVENT, event=event.fields())

    def print_markdown(self, text: str) -> None:
        self.send(MessageKind.MARKDOWN, text)

    def progress(self, message: str, fraction: float) -> None:
        """Send progress from 0 to 1, once for each percent."""
        percent = int(fraction * 100)
        if self._printed_progress != (message, percent):
            self._printed_progress = (message, percent)
            self.send(MessageKind.PROGRESS, message, progress=fraction)

    def end_progress(self) -> None:
        self.send(MessageKind.PROGRESS_END)

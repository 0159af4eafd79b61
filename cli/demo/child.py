"""A federation in a process of its own, seen from the one that owns the terminal.

The process leads a session: no key of the terminal reaches it, and what anything in it prints goes
into a file without a name, never over a screen. The file, and no pipe: nothing blocks, and nothing
breaks, when nobody reads.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cli.demo.messages import LINES, VIEW

BLOCK = 1 << 16


@dataclass(frozen=True)
class Told:
    """One thing that it said.

    Attributes:
        kind: See `cli/demo/messages.py`; `stdout` or `stderr` is what a library printed, `error` the
            line of an error, `crash` an error that nobody expected.
        message: For people.
        more: Further keys.
    """

    kind: str
    message: str
    more: Mapping[str, Any] = field(default_factory=dict)


def parse(line: bytes) -> Told:
    """One line; what is no object was written by C code, past all streams."""
    text = line.decode("utf-8", "backslashreplace").rstrip()
    try:
        entry = json.loads(text)
        return Told(str(entry["kind"]), str(entry["message"]), entry)
    except (ValueError, KeyError, TypeError):
        return Told("stderr", text)


class Child:
    """The process, from its start."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """Start it.

        Args:
            arguments: Of `fccl`.
        """
        # -P: what lies in the working directory is no part of the program.
        command = [sys.executable, "-P", "-m", "cli", *arguments]
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as this object
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=self._file,
            stderr=self._file,
            start_new_session=True,
        )
        self._read = 0  # the file's own offset is the process's
        self._begun = b""

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def told(self) -> list[Told]:
        """What it has said since the last call; at once."""
        ended = self.code is not None  # looked at first: it may speak between the two
        while block := os.pread(self._file.fileno(), BLOCK, self._read):
            self._read += len(block)
            self._begun += block
        *lines, self._begun = self._begun.split(b"\n")
        if ended and self._begun:
            lines, self._begun = [*lines, self._begun], b""
        return [parse(line) for line in lines if line.strip()]

    def interrupt(self) -> None:
        """What Ctrl-C does: the first time it ends cleanly, the second time at once."""
        self._process.send_signal(signal.SIGINT)

    def view(self, terminal: str | None) -> None:
        """Say that a view holds a terminal, or none any more: it tidies up after a killed one."""
        self._say(f"{VIEW} {terminal}\n" if terminal else f"{LINES}\n")

    def release(self) -> None:
        """Nobody looks any more; a run that is not over is stopped."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended: `code` says so
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()

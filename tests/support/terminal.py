"""A command on a pseudo-terminal: what it draws, keys pressed, and the state that it leaves."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import LONG, eventually, restore_interrupts

ENTERED, LEFT = "\x1b[?1049h", "\x1b[?1049l"
"""Codes that enter and leave the alternate screen."""

_CODES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|P[^\x1b]*\x1b\\|[@-_])")


class Terminal:
    """A pseudo-terminal, and the command that runs on it."""

    def __init__(
        self,
        args: tuple[str, ...],
        directory: Path,
        variables: Mapping[str, str],
        size: tuple[int, int],
    ) -> None:
        self._ours, self._its = pty.openpty()
        columns, rows = size
        fcntl.ioctl(self._its, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.modes_before = self.modes()
        unwanted = ("CI", "COLUMNS", "LINES")
        environment = {key: value for key, value in os.environ.items() if key not in unwanted}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cli", *args],
            cwd=directory,
            env=environment | {"TERM": "xterm-256color"} | variables,
            stdin=self._its,
            stdout=self._its,
            stderr=self._its,
            start_new_session=True,
            preexec_fn=restore_interrupts,  # noqa: PLW1509 - calls nothing but signal()
        )
        self.pid = self._process.pid
        self._seen = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def raw(self) -> str:
        """All that was written to it."""
        return self._seen.decode("utf-8", "replace")

    @property
    def text(self) -> str:
        """The same without control sequences."""
        return _CODES.sub("", self.raw)

    @property
    def left(self) -> str:
        """The text after the alternate screen was left for the last time; else empty."""
        return _CODES.sub("", self.raw.rpartition(LEFT)[2]) if LEFT in self.raw else ""

    def modes(self) -> list[object]:
        """Return the terminal's settings for keys and lines."""
        return list(termios.tcgetattr(self._its))

    def shows(self, text: str, deadline_s: float = LONG) -> None:
        """Wait until a text was shown."""
        eventually(f"{text!r} shown", lambda: self._has_shown(text), deadline_s)

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def children(self) -> list[int]:
        """Return the ids of the processes that the command has started."""
        return [
            int(pid)
            for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        ]

    def end(self, deadline_s: float = LONG) -> int:
        """Wait until the command ends, and return its exit code."""
        code = self._process.wait(deadline_s)
        eventually("all of it is read", lambda: not self._pending())
        return code

    def close(self) -> None:
        """Kill what still runs."""
        if self._process.poll() is None:
            for pid in (*self.children(), self.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._its)
        self._reader.join(LONG)
        os.close(self._ours)

    def _pending(self) -> int:
        waiting = fcntl.ioctl(self._ours, termios.FIONREAD, b"\0\0\0\0")
        return int(struct.unpack("i", waiting)[0])

    def _has_shown(self, text: str) -> bool:
        ended = self._process.poll() is not None and not self._pending()
        shown = text in self.text
        assert shown or not ended, f"ended without {text!r}:\n{self.text[-3000:]}"
        return shown

    def _read(self) -> None:
        # The end of a terminal is an error.
        with contextlib.suppress(OSError):
            while block := os.read(self._ours, 1 << 16):
                self._seen += block


@contextmanager
def terminal(
    *args: str, directory: Path, variables: Mapping[str, str], size: tuple[int, int] = (100, 30)
) -> Iterator[Terminal]:
    """Run a command on a terminal of `size` columns and rows."""
    place = Terminal(args, directory, variables, size)
    try:
        yield place
    finally:
        place.close()

"""The process of the federation (`cli/demo/child.py`), seen from the one with the screen."""

from __future__ import annotations

import contextlib
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from pydantic import ValidationError

from cli.demo.messages import DemoMessage, MessageKind

LAST_MESSAGES_S = 1.0


def parse_message(line: bytes) -> DemoMessage:
    """Return the message of a line; any other line becomes a text."""
    try:
        return DemoMessage.model_validate_json(line)
    except ValidationError:
        text = line.decode("utf-8", "backslashreplace").rstrip()
        return DemoMessage(kind=MessageKind.TEXT, text=text)


class FederationProcess:
    """Process in a session of its own, so that no key of the terminal reaches it."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """Start `fccl` with these arguments."""
        # -P: the working directory may contain modules, which are no part of the program.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cli", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._messages: queue.SimpleQueue[DemoMessage] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="messages", daemon=True)
        self._reader.start()

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def messages(self) -> list[DemoMessage]:
        """Return the messages since the last call, without waiting for more."""
        if self.exit_code is not None:
            self._reader.join(LAST_MESSAGES_S)
        return [self._messages.get() for _ in range(self._messages.qsize())]

    def interrupt(self) -> None:
        """Send SIGINT: the first one ends the run cleanly, the second one at once."""
        self._process.send_signal(signal.SIGINT)

    def release(self) -> None:
        """Report that the screen is closed; the process then stops an unfinished run."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it has ended, or was released before
            self._process.stdin.write(b"\n")
            self._process.stdin.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._messages.put(parse_message(line))

"""The process of the federation (`cli/demo/child.py`), seen from the one with the screen."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections.abc import Sequence

from cli.child_messages import ChildMessage, open_child, parse_message

LAST_MESSAGES_S = 1.0


class FederationProcess:
    """A process that leads a session of its own, so that no key of the terminal reaches it."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """Start it with these arguments of `fccl`."""
        self._process = open_child("cli", *arguments)
        self._messages: queue.SimpleQueue[ChildMessage] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="messages", daemon=True)
        self._reader.start()

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def messages(self) -> list[ChildMessage]:
        """Return the messages since the last call, without waiting for more."""
        if self.exit_code is not None:
            self._reader.join(LAST_MESSAGES_S)
        return [self._messages.get() for _ in range(self._messages.qsize())]

    def interrupt(self) -> None:
        """Send SIGINT: the first one ends the run cleanly, the second one at once."""
        self._process.send_signal(signal.SIGINT)

    def release(self) -> None:
        """Tell it that the screen is closed; it stops a run that is not over."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it has ended, or was told already
            self._process.stdin.write(b"\n")
            self._process.stdin.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._messages.put(parse_message(line))

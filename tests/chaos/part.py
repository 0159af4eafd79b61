"""Part of a federation: a process that is started again whenever it ends, as a supervisor would."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.processes import Command, process_state

TRACEBACK = "Traceback (most recent call last)"
USUAL_DELAY_S = 0.5
UNEXPECTED = 1
"""Exit code of a command that fails without an error of its own."""
REFUSALS = (2, 3)
"""Exit codes of a command that refuses its configuration or its rows."""


class PartRefused(Exception):
    """A part that no restart can help."""


@dataclass
class Part:
    """Coordinator or worker; `start` starts one more process of it."""

    name: str
    start: Callable[[], Command]
    commands: list[Command] = field(default_factory=list)
    restart_at: float | None = 0.0
    finished: bool = False  # one of its last processes ended with exit code 0
    _first: int = 0  # index of the first process since the last restart

    def tend(self) -> None:
        """Restart it if none of its processes runs, the delay is over, and it is not finished."""
        if self.running or self.finished:
            return
        now = time.monotonic()
        if self.restart_at is None:
            if self.newest.code in REFUSALS:
                raise PartRefused(f"{self.name}: {self.newest.err}")
            self.finished = any(command.code == 0 for command in self.commands[self._first :])
            self.restart_at = now + USUAL_DELAY_S
        elif now >= self.restart_at:
            self._first = len(self.commands)
            self.add()

    def expect_end(self, delay_s: float) -> None:
        """Restart it a while after its end, whatever its exit code is."""
        self.restart_at = time.monotonic() + delay_s
        self.finished = False

    def add(self) -> Command:
        """Start one more process."""
        self.restart_at = None
        self.commands.append(self.start())
        return self.commands[-1]

    @property
    def running(self) -> list[Command]:
        return [command for command in self.commands if command.code is None]

    @property
    def newest(self) -> Command:
        return self.commands[-1]

    def signal(self, number: signal.Signals) -> None:
        """Signal all its processes that run."""
        for command in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(command.pid, number)

    def says(self, text: str) -> bool:
        """Return whether one of its processes has printed a text."""
        return any(text in command.out for command in self.commands)

    def state(self) -> str:
        """Return its processes, their states or exit codes, and the ends of their logs."""
        return "\n".join(_describe(self.name, command) for command in self.commands[-3:])

    def unexpected_errors(self) -> list[str]:
        """Return the errors of its processes that no remedy belongs to."""
        return [
            f"{self.name}, exit {command.code}: {command.err[-3000:]}"
            for command in self.commands
            if command.code == UNEXPECTED or TRACEBACK in command.err or TRACEBACK in command.out
        ]


def _describe(name: str, command: Command) -> str:
    running = command.code is None
    code = f"state {process_state(command.pid)}" if running else f"exit {command.code}"
    lines = [*command.out.splitlines()[-15:], *command.err.splitlines()[-5:]]
    return "\n    ".join([f"{name}, process {command.pid}, {code}:", *lines])

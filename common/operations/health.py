"""Health of a long-running process, for `/livez`, `/readyz` and `fccl health`.

A process is *alive* if its main loop has turned within a time limit. It is *ready* if it is alive
and each part that it needs works. The code that notices a problem reports it here; nothing here
asks a server, so a probe costs nothing and never waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from common.clock import Clock

NOT_YET = "not yet"


class Health:
    """The health of one process: alive at first, and not yet ready.

    Methods may be called from any thread.

    Args:
        parts: Names of the parts that must work.
        limit_s: The longest time that one turn of the main loop may take.
    """

    def __init__(self, parts: Iterable[str], limit_s: float, clock: Clock = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._problems = dict.fromkeys(parts, NOT_YET)
        self._limit, self._clock = limit_s, clock
        self._turned: float | None = None

    def tick(self) -> None:
        """Record that the main loop has turned, or that something in it makes progress."""
        with self._lock:
            self._turned = self._clock()

    def pause(self) -> None:
        """Stop watching the main loop, which has not begun or has ended."""
        with self._lock:
            self._turned = None

    def set_problem(self, name: str, problem: str = "") -> None:
        """Set the problem of a part; empty if it works."""
        with self._lock:
            self._problems[name] = problem

    def is_working(self, name: str) -> bool:
        with self._lock:
            return not self._problems[name]

    def stalled(self) -> str:
        """Return why the process does not count as alive; empty while it does."""
        with self._lock:
            since = 0.0 if self._turned is None else self._clock() - self._turned
        return f"the main loop has not turned for {since:.0f} s" if since > self._limit else ""

    def problems(self) -> tuple[str, ...]:
        """Return the reasons why the process is not ready; none if it is."""
        with self._lock:
            problems = [f"{name}: {text}" for name, text in self._problems.items() if text]
        stalled = self.stalled()
        return (*([f"loop: {stalled}"] if stalled else []), *problems)

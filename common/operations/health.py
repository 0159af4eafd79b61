"""Whether a long-running process is well: what `/livez`, `/readyz` and `fccl health` answer.

*Alive*: the main loop has turned within a limit. *Ready*: it is alive, and each part that it needs
works. Parts are reported by whoever notices; nothing here asks a server, so a probe costs nothing
and never waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from common.clock import Clock

NOT_YET = "not yet"


class Health:
    """One process's. Methods may be called from any thread."""

    def __init__(self, parts: Iterable[str], limit_s: float, clock: Clock = time.monotonic) -> None:
        """Alive, and not yet ready.

        Args:
            parts: What must work, each named in a word.
            limit_s: The longest that the main loop may take for one turn.
            clock: Monotonic seconds.
        """
        self._lock = threading.Lock()
        self._problems = dict.fromkeys(parts, NOT_YET)
        self._limit, self._clock = limit_s, clock
        self._turned: float | None = None

    def tick(self) -> None:
        """The main loop has come round, or something in it has got on."""
        with self._lock:
            self._turned = self._clock()

    def pause(self) -> None:
        """The main loop does not run: it has not begun, or it is over."""
        with self._lock:
            self._turned = None

    def set_problem(self, name: str, problem: str = "") -> None:
        """How a part is; no problem means well."""
        with self._lock:
            self._problems[name] = problem

    def is_working(self, name: str) -> bool:
        """Whether a part works."""
        with self._lock:
            return not self._problems[name]

    def stalled(self) -> str:
        """Why the process does not count as alive; empty while it does."""
        with self._lock:
            since = 0.0 if self._turned is None else self._clock() - self._turned
        return f"the main loop has not turned for {since:.0f} s" if since > self._limit else ""

    def problems(self) -> tuple[str, ...]:
        """Why the process is not ready, one line for each reason; none when it is."""
        with self._lock:
            found = [f"{name}: {text}" for name, text in self._problems.items() if text]
        stalled = self.stalled()
        return (*([f"loop: {stalled}"] if stalled else []), *found)

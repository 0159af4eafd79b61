"""Stopwatch for the parts of a task.

`worker/task_runner.py` starts it, and `worker/trainer.py` uses it, too. Its result travels with the
update and says where the time of a task goes besides training.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from common.protocol.updates import TaskSeconds

Part = Literal["fetch", "load", "reference", "measure", "encode"]


class TaskClock:
    """Sums the wall-clock seconds of each part; a part may be entered several times."""

    def __init__(self) -> None:
        self._spent: Counter[str] = Counter()

    @contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """Add the time within the context to a part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._spent[name] += time.perf_counter() - start  # type: ignore[assignment]

    def seconds(self) -> TaskSeconds:
        """Return the parts so far, rounded to milliseconds."""
        return TaskSeconds(**{name: round(spent, 3) for name, spent in self._spent.items()})

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

from common.protocol.updates import ContributionStats, TaskSeconds

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


def describe_seconds(stats: ContributionStats) -> str:
    """Return the time of a task as text, without parts that took less than 0.05 s."""
    training = f"{stats.train_seconds:.1f} s"
    if stats.seconds is None:
        return training
    others = dict(stats.seconds)
    named = ", ".join(f"{name} {spent:.1f}" for name, spent in others.items() if spent >= 0.05)
    text = f"{training} of training and {sum(others.values()):.1f} s more"
    return f"{text} ({named})" if named else text

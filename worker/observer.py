"""Hooks that a worker calls when it has done something; `worker/metrics.py` counts them."""

from __future__ import annotations

from typing import Literal

from common.protocol.fields import TaskState
from common.protocol.updates import ContributionStats

TaskOutcome = Literal["trained", "abandoned", "refused"]


class Observer:
    """Hooks that do nothing. Subclasses override those that they need.

    They are called from several threads, which wait for them: be quick, and raise nothing.
    """

    def on_turn(self) -> None:
        """Called at the beginning of each turn of the main loop, and after each training step."""

    def on_task_end(self, outcome: TaskOutcome, stats: ContributionStats | None = None) -> None:
        """Called when a task has ended; `stats` only if it was trained."""

    def on_publish(self, nbytes: int) -> None:
        """Called when an update was handed to the broker, for the first time or again."""

    def on_receipt(self, state: TaskState) -> None:
        """Called when an update has its receipt."""

    def on_heartbeat(self, arrived: bool) -> None:
        """Called after each heartbeat; `arrived` is false if the store did not answer."""

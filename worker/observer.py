"""Hooks that a worker calls when it has done something; `worker/metrics.py` counts them."""

from __future__ import annotations

from typing import Literal

from common.protocol.fields import TaskState
from common.protocol.updates import ContributionStats

TaskOutcome = Literal["trained", "evaluated", "abandoned", "refused"]


class Observer:
    """Hooks that do nothing. Subclasses override those that they need.

    They are called from several threads, which wait for them: be quick, and raise nothing.
    """

    def on_turn(self) -> None:
        """Handle the beginning of a turn of the main loop, or the end of a training step."""

    def on_task_end(self, outcome: TaskOutcome, stats: ContributionStats | None = None) -> None:
        """Handle the end of a task, with `stats` if it was trained."""

    def on_evaluation(self, seconds: float) -> None:
        """Handle an evaluation that is done, and the time that scoring rows took."""

    def on_publish(self, nbytes: int) -> None:
        """Handle an update that was handed to the broker, for the first time or again."""

    def on_receipt(self, state: TaskState) -> None:
        """Handle the receipt of an update."""

    def on_heartbeat(self, arrived: bool) -> None:
        """Handle a heartbeat; `arrived` is false if the store did not answer."""

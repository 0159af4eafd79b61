"""Who is told what a worker does: metrics. Changes nothing, never raises."""

from __future__ import annotations

from typing import Literal, Protocol

from common.protocol.fields import TaskState
from common.protocol.updates import ContributionStats

Outcome = Literal["trained", "abandoned", "refused"]


class Observer(Protocol):
    """Called from several threads, which wait: return at once."""

    def turned(self) -> None:
        """The main loop has come round, or training has got a step further."""

    def ended(self, outcome: Outcome, stats: ContributionStats | None = None) -> None:
        """A task is done with; `stats` where it was trained."""

    def published(self, nbytes: int) -> None:
        """An update was handed to the broker, for the first time or again."""

    def settled(self, state: TaskState) -> None:
        """An update has its receipt."""

    def beaten(self, arrived: bool) -> None:
        """A heartbeat was written, or the store does not answer."""


class Nobody:
    """An observer that does not look."""

    def turned(self) -> None:
        """Nothing."""

    def ended(self, outcome: Outcome, stats: ContributionStats | None = None) -> None:
        """Nothing."""

    def published(self, nbytes: int) -> None:
        """Nothing."""

    def settled(self, state: TaskState) -> None:
        """Nothing."""

    def beaten(self, arrived: bool) -> None:
        """Nothing."""

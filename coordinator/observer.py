"""Who is told what the service does, once it is durable: metrics. Changes nothing, never raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from broker.protocol import QueueDepth
from common.protocol.versions import VersionSummary
from coordinator.core.events import Action
from coordinator.core.state import CoordinatorState


class Observer(Protocol):
    """Called in the service's thread, which waits: return at once."""

    def turned(self) -> None:
        """The main loop has come round."""

    def stepped(
        self,
        before: CoordinatorState,
        after: CoordinatorState,
        actions: tuple[Action, ...],
        made: Mapping[int, VersionSummary],
        seconds: float,
    ) -> None:
        """A step is in the journal.

        Args:
            before: The state that it began with.
            after: The state that it led to.
            actions: What it decided.
            made: The versions that it made.
            seconds: How long it took to make it durable, aggregation included.
        """

    def pulsed(self, state: CoordinatorState, store_up: bool) -> None:
        """About once a second: how the run stands, and whether the store answers."""

    def queues(self, depths: Mapping[str, QueueDepth]) -> None:
        """The queues' depths, by name, as often as the broker tells them."""


class Nobody:
    """An observer that does not look."""

    def turned(self) -> None:
        """Nothing."""

    def stepped(
        self,
        before: CoordinatorState,
        after: CoordinatorState,
        actions: tuple[Action, ...],
        made: Mapping[int, VersionSummary],
        seconds: float,
    ) -> None:
        """Nothing."""

    def pulsed(self, state: CoordinatorState, store_up: bool) -> None:
        """Nothing."""

    def queues(self, depths: Mapping[str, QueueDepth]) -> None:
        """Nothing."""

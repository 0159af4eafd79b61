"""Hooks that the service calls in its main loop; what they report is durable already."""

from __future__ import annotations

from collections.abc import Mapping

from broker.protocol import QueueDepth
from common.protocol.versions import VersionSummary
from coordinator.core.events import Action
from coordinator.core.state import CoordinatorState


class CoordinatorObserver:
    """Hooks that do nothing. Subclasses override those that they need.

    The main loop waits for each of them: return quickly, change nothing and raise nothing.
    """

    def on_turn(self) -> None:
        """Handle the beginning of each turn of the main loop."""

    def on_step(
        self,
        before: CoordinatorState,
        after: CoordinatorState,
        actions: tuple[Action, ...],
        summaries: Mapping[int, VersionSummary],
        seconds: float,
    ) -> None:
        """Handle a step of the core, which is in the journal.

        `summaries` holds the versions that the step made, by number; `seconds` is the time that it
        took to make the step durable, aggregation included.
        """

    def on_tick(self, state: CoordinatorState, store_up: bool, queue_problem: str) -> None:
        """Handle the newest state, about once a second.

        `queue_problem` says why the run's queues could not be verified; empty if they are in order.
        """

    def on_depths(self, depths: Mapping[str, QueueDepth]) -> None:
        """Handle the depths of the run's queues, by queue name, about once a second."""

    def on_repair(self, names: tuple[str, ...]) -> None:
        """Handle queues, exchanges or bindings that had to be declared again."""

"""Hooks that the service calls in its main loop, once what they report is durable."""

from __future__ import annotations

from collections.abc import Mapping

from broker.protocol import QueueDepth
from common.protocol.versions import VersionSummary
from coordinator.core.events import Action
from coordinator.core.state import CoordinatorState


class CoordinatorObserver:
    """Hooks that do nothing. Subclasses override those that they need.

    The main loop waits for each of them: return at once, change nothing and raise nothing.
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

        Args:
            before: The state in which the step began.
            after: The state to which it led.
            actions: The actions that the core decided on.
            summaries: The versions that the step made, by number.
            seconds: Time to make the step durable, aggregation included.
        """

    def on_tick(self, state: CoordinatorState, store_up: bool, queue_problem: str) -> None:
        """Handle the newest state, about once a second.

        Args:
            state: The newest state.
            store_up: Whether the store answers.
            queue_problem: Why the run's queues could not be verified; empty if they are in order.
        """

    def on_depths(self, depths: Mapping[str, QueueDepth]) -> None:
        """Handle the depths of the run's queues, by queue name, whenever they were read."""

    def on_repair(self, names: tuple[str, ...]) -> None:
        """Handle queues, exchanges or bindings that had to be declared again."""

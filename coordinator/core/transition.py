"""Result of a function of the core."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.core.events import Action
from coordinator.core.state import CoordinatorState


@dataclass(frozen=True)
class Transition:
    """State after an event, and the actions that a driver carries out, in order."""

    state: CoordinatorState
    actions: tuple[Action, ...] = ()

    def then(self, *actions: Action, state: CoordinatorState | None = None) -> Transition:
        """Return this transition with actions appended and, optionally, another state."""
        return Transition(state or self.state, self.actions + actions)

"""A state and what is to be done about it: what each part of the core returns."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.core.events import Action
from coordinator.core.state import CoordinatorState


@dataclass(frozen=True)
class Transition:
    """A state, and the actions that led to it."""

    state: CoordinatorState
    actions: tuple[Action, ...] = ()

    def then(self, *actions: Action, state: CoordinatorState | None = None) -> Transition:
        """This step, followed by more."""
        return Transition(state or self.state, self.actions + actions)

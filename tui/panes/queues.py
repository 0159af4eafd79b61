"""Placeholder of the pane `queues`."""

from __future__ import annotations

from textual.widgets import Static

from tui.feed import Look


class Queues(Static):
    """To come."""

    def show(self, look: Look) -> None:
        """Nothing yet."""
        self.update("to come")

"""Placeholder of the pane `aggregation`."""

from __future__ import annotations

from textual.widgets import Static

from tui.feed import Look


class Aggregation(Static):
    """To come."""

    def show(self, look: Look) -> None:
        """Nothing yet."""
        self.update("to come")

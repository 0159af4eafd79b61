"""Placeholder of the pane `log`."""

from __future__ import annotations

from textual.widgets import Static

from tui.feed import Look


class Log(Static):
    """To come."""

    def show(self, look: Look) -> None:
        """Nothing yet."""
        self.update("to come")

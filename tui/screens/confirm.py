"""Asks before something that cannot be taken back. The default is no."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Static


class ConfirmScreen(ModalScreen[bool]):
    """One question; `y` is yes, every other key that one would try is no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "yes"),
        Binding("n,escape,enter,q,space", "dismiss(False)", "no"),
    ]

    def __init__(self, question: str) -> None:
        """Ask this."""
        super().__init__()
        self.question = question

    def compose(self) -> ComposeResult:
        """One box."""
        yield Static(f"{self.question}\n\ny  yes      any of n, enter, escape  no", markup=False)

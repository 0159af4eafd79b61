"""Question of `q` in `fccl demo`: stop the run, or let it go on without the screen."""

from __future__ import annotations

from typing import ClassVar, Literal

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Static

QuitChoice = Literal["stop", "leave", ""]

QUESTION = """\
This command runs the federation. What should happen to it?

s        stop: commit what has arrived, then end; continue later with --resume
l        leave this screen: the run continues, with its events as lines
escape   stay here"""


class QuitRunScreen(ModalScreen[QuitChoice]):
    """Box with the three answers; the empty answer means to stay."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "dismiss('stop')", "stop"),
        Binding("l", "dismiss('leave')", "leave"),
        Binding("escape,q,n,enter,space", "dismiss('')", "stay"),
    ]

    def compose(self) -> ComposeResult:
        yield Static(QUESTION, markup=False)

"""What the keys do."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Static

WATCH = """\
1 … 8    overview, workers, clients, aggregation, queues, inbox, log, samples
↑ ↓      move, as do Page Up, Page Down and the mouse
s        sort a table by its next column; so does a click on a header
/        show only the rows that contain a text; escape ends it
enter    the history of the client or worker under the cursor
← →      in samples: older and newer versions beside the base
space    hold the view still, and let it go on
ctrl+p   all commands, and the colours
q        quit; the run goes on"""

CONTROL = """
p        pause: no new tasks; again: resume
D        drain: finish what is open, then end the run
S        stop: end the run now; it can be resumed
k        kick the client under the cursor; u: pardon it
r        issue the open task of that client again"""

LEGEND = """
A line on top says when the view is old: without the store the
last view stays, and this screen reconnects by itself."""


class Help(ModalScreen[None]):
    """One box with all keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,space,enter", "dismiss", "close")
    ]

    def __init__(self, controls: bool) -> None:
        """The keys of this session.

        Args:
            controls: Whether it may change the run.
        """
        super().__init__()
        self._text = "\n".join([WATCH, *([CONTROL] if controls else []), LEGEND])

    def compose(self) -> ComposeResult:
        """One box."""
        yield Static(self._text, markup=False)

"""What the keys do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.table import Table
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

KeyHelp = tuple[str, str]
"""Keys as they are written on a keyboard, and what they do."""

QUIT_KEY: KeyHelp = ("q", "quit, as does ctrl+q; the run goes on")
VIEW_KEYS: tuple[KeyHelp, ...] = (
    ("1 … 8", "overview, workers, clients, aggregation, queues, inbox, log, samples"),
    ("↑ ↓", "move, as do page up, page down, home, end and the mouse"),
    ("s", "sort a table by its next column; so does a click on a header"),
    ("/", "show only the rows that contain a text; escape ends it"),
    ("enter", "the history of a client or worker; in the log, go where the line leads"),
    ("l", "in the log: all levels, warnings and worse, errors"),
    ("← →", "in samples: older and newer versions beside the base"),
    ("space", "hold the view still, and let it go on"),
    ("ctrl+p", "all commands, and the colours"),
    ("?", "this help"),
    QUIT_KEY,
)
COMMAND_KEYS: tuple[KeyHelp, ...] = (
    ("p", "pause: no new tasks; where it is paused, resume"),
    ("D", "drain: finish what is open, then end the run"),
    ("S", "stop: end the run now; it can be resumed"),
    ("k", "kick the client under the cursor; u: pardon it"),
    ("r", "issue the open task of that client again"),
)
LEGEND = """\
A line on top says when the view is old: without the store the last view stays, and \
this screen reconnects by itself."""


def table(keys: Sequence[KeyHelp]) -> Table:
    """A line for each, or more where space is short."""
    grid = Table.grid(padding=(0, 2))
    for key, does in keys:
        grid.add_row(key, does)
    return grid


class HelpScreen(ModalScreen[None]):
    """One box with all keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,space,enter", "dismiss", "close")
    ]

    def __init__(self, keys: Sequence[KeyHelp], controls: bool) -> None:
        """The keys of this session.

        Args:
            keys: Of the screen.
            controls: Whether it may change the run.
        """
        super().__init__()
        self._keys = (*keys, *((("", ""), *COMMAND_KEYS) if controls else ()))

    def compose(self) -> ComposeResult:
        """One box; a low terminal shows a part of it."""
        with VerticalScroll():
            yield Static(table(self._keys))
            yield Static(LEGEND, id="legend", markup=False)

"""Help screen with the keys of the app."""

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
"""Keys as written on a keyboard, and what they do."""

VIEW_KEYS: tuple[KeyHelp, ...] = (
    ("1 … 9", "overview, workers, clients, aggregation, queues, inbox, log, samples, evaluation"),
    ("↑ ↓", "move the cursor; also page up, page down, home, end and the mouse"),
    ("s", "sort a table by its next column; a click on a column title sorts too"),
    ("/", "show only rows that contain a text; escape shows all again"),
    ("enter", "history of a client or worker; in the log, open what the event is about"),
    ("l", "in the log: all levels, warnings and errors, errors only"),
    ("← →", "in samples: older or newer versions next to the base model"),
    ("space", "freeze the view, or continue"),
    ("ctrl+p", "command palette and colour themes"),
    ("?", "this help"),
    ("q", "quit, as does ctrl+q; the run goes on"),
)
COMMAND_KEYS: tuple[KeyHelp, ...] = (
    ("p", "pause: issue no new tasks; resume a paused run"),
    ("D", "drain: wait for open tasks, then end the run"),
    ("S", "stop: end the run now; it can be resumed later"),
    ("k", "kick the client under the cursor: it gets no more tasks; u: pardon it"),
    ("r", "reissue the open task of the client under the cursor"),
    ("ctrl+p", "also: lower the minimum of clients; evaluate the newest version"),
)
NOTES = """\
The top line shows problems and the end of the run. When the store is lost, the last view stays \
and this screen reconnects by itself."""


def _table(keys: Sequence[KeyHelp]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for key, meaning in keys:
        grid.add_row(key, meaning)
    return grid


class HelpScreen(ModalScreen[None]):
    """Box with all keys; scrolls on a low terminal."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,space,enter", "dismiss", "close")
    ]

    def __init__(self, keys: Sequence[KeyHelp], commands: bool) -> None:
        """Create the screen; with `commands`, the keys that change the run are listed too."""
        super().__init__()
        self._keys = (*keys, *((("", ""), *COMMAND_KEYS) if commands else ()))

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(_table(self._keys))
            yield Static(NOTES, id="notes", markup=False)

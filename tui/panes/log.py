"""What has happened: the event stream, by level and text. After `tui/data/reader.py` on an event's way."""

from __future__ import annotations

from typing import ClassVar, Literal

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Input, Static

from common.protocol.feed import Event
from tui.data import history
from tui.data.reader import Snapshot
from tui.event_line import format_event
from tui.widgets.row_list import RowList

STYLE = {
    "info": "",
    "warning": "yellow",
    "error": "bold red",
}  # beside the mark of tui/event_line.py


class LogPane(Vertical):
    """Newest at the bottom; stays at the bottom unless the cursor was moved up."""

    DEFAULT_CSS = """
    LogPane > #log-head { height: 1; color: $text-muted; }
    LogPane > #log-text { height: 1; border: none; padding: 0; display: none; }
    LogPane > #log-text.open { display: block; }
    LogPane > #log-event { height: auto; max-height: 3; border-top: solid $panel; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("l", "level", "level"),
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("escape", "unfilter", "all", show=False),
    ]

    class EventChosen(Message):
        """An event was chosen that is about a client or a version."""

        def __init__(self, kind: Literal["client", "version"], name: str) -> None:
            """`name` is the client's id, or the version's number."""
            super().__init__()
            self.kind, self.name = kind, name

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._events: tuple[Event, ...] = ()
        self._shown: list[Event] = []
        self._level, self._text = history.LEVELS[0], ""

    def compose(self) -> ComposeResult:
        """What is filtered; the filter; the events; the one under the cursor in full."""
        yield Static(id="log-head", markup=False)
        yield Input(
            placeholder="text, kind, client or task; escape shows all", id="log-text", disabled=True
        )
        yield RowList(arrivals="bottom", empty="no events", id="log-rows")
        yield Static(id="log-event", markup=False)

    def on_mount(self) -> None:
        """Say that there is nothing yet."""
        self._fill()

    def show(self, snapshot: Snapshot) -> None:
        """Take in what is new."""
        events = snapshot.view.events if snapshot.view else ()
        if events is not self._events:
            self._events = events
            self._fill()

    def action_level(self) -> None:
        """All events, or from warnings on, or errors alone."""
        levels = history.LEVELS
        self._level = levels[(levels.index(self._level) + 1) % len(levels)]
        self._fill()

    def action_filter(self) -> None:
        """Ask for a text."""
        self._open(True)

    def action_unfilter(self) -> None:
        """Show all texts again."""
        self.query_one("#log-text", Input).value = ""
        self._open(False)

    @on(Input.Changed, "#log-text")
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self._text = event.value.strip()
        self._fill()

    @on(Input.Submitted, "#log-text")
    def _entered(self, event: Input.Submitted) -> None:
        event.stop()
        if self._text:
            self.query_one(RowList).focus()
        else:
            self._open(False)

    @on(RowList.CursorMoved)
    def _moved(self, message: RowList.CursorMoved) -> None:
        message.stop()
        self._tell()

    @on(RowList.RowChosen)
    def _chosen(self, message: RowList.RowChosen) -> None:
        message.stop()
        event = self._current()
        if event is not None and (target := history.target(event)) is not None:
            self.post_message(self.EventChosen(*target))

    def _open(self, asked: bool) -> None:
        field = self.query_one("#log-text", Input)
        field.set_class(asked, "open")
        field.disabled = not asked  # what is out of sight must get no keys
        (field if asked else self.query_one(RowList)).focus()

    def _fill(self) -> None:
        self._shown = shown = history.passing(self._events, self._level, self._text)
        # Equal events may follow each other; the reader keeps each one the same object.
        self.query_one(RowList).put([id(event) for event in shown], lambda row: _line(shown[row]))
        self._tell()

    def _tell(self) -> None:
        rows, event = self.query_one(RowList), self._current()
        level = "all levels" if self._level == "info" else f"{self._level} and worse"
        if self._level == "error":
            level = "errors"
        text = f" · {self._text!r}" if self._text else ""
        where = "newest" if rows.follows else "held here; end follows"
        head = f"{len(self._shown)} of {len(self._events)} events · {level}{text} · {where}"
        self.query_one("#log-head", Static).update(head)
        self.query_one("#log-event", Static).update(_line(event) if event else "")

    def _current(self) -> Event | None:
        rows = self.query_one(RowList)
        return self._shown[rows.cursor] if rows.cursor < len(self._shown) else None


def _line(event: Event) -> Text:
    return Text(format_event(event), style=STYLE[event.level])

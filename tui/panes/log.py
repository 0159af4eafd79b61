"""Log pane: the event feed, filtered by level and text."""

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
from tui.data.events import LEVELS, event_target, filter_events
from tui.data.reader import Snapshot
from tui.formatting import format_event
from tui.widgets.row_list import RowList

STYLES = {"info": "", "warning": "yellow", "error": "bold red"}
LEVEL_NAMES = {"info": "all levels", "warning": "warnings and errors", "error": "errors"}


class LogPane(Vertical):
    """Events, newest at the bottom, where the cursor stays unless it was moved up."""

    DEFAULT_CSS = """
    LogPane > #log-head { height: 1; color: $text-muted; }
    LogPane > #log-text { height: 1; border: none; padding: 0; display: none; }
    LogPane > #log-text.open { display: block; }
    LogPane > #log-event { height: auto; max-height: 3; border-top: solid $panel; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("l", "level", "level"),
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("escape", "clear_filter", "all", show=False),
    ]

    class EventChosen(Message):
        """An event about a client or a version was chosen."""

        def __init__(self, kind: Literal["client", "version"], name: str) -> None:
            """Create the message with the client's id or the version's number."""
            super().__init__()
            self.kind, self.name = kind, name

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._events: tuple[Event, ...] = ()
        self._shown: list[Event] = []
        self._level, self._text = LEVELS[0], ""

    def compose(self) -> ComposeResult:
        yield Static(id="log-head", markup=False)
        yield Input(
            placeholder="text, kind, client or task; escape shows all",
            id="log-text",
            disabled=True,
        )
        yield RowList(arrivals="bottom", empty="no events", id="log-rows")
        yield Static(id="log-event", markup=False)

    def on_mount(self) -> None:
        self._fill()

    def show(self, snapshot: Snapshot) -> None:
        events = snapshot.view.events if snapshot.view else ()
        if events is not self._events:
            self._events = events
            self._fill()

    def action_level(self) -> None:
        """Switch between all events, warnings and errors, and errors only."""
        levels = LEVELS
        self._level = levels[(levels.index(self._level) + 1) % len(levels)]
        self._fill()

    def action_filter(self) -> None:
        self._open_filter(True)

    def action_clear_filter(self) -> None:
        self.query_one("#log-text", Input).value = ""
        self._open_filter(False)

    @on(Input.Changed, "#log-text")
    def _on_typed(self, event: Input.Changed) -> None:
        event.stop()
        self._text = event.value.strip()
        self._fill()

    @on(Input.Submitted, "#log-text")
    def _on_entered(self, event: Input.Submitted) -> None:
        event.stop()
        if self._text:
            self.query_one(RowList).focus()
        else:
            self._open_filter(False)

    @on(RowList.CursorMoved)
    def _on_cursor_moved(self, message: RowList.CursorMoved) -> None:
        message.stop()
        self._update_lines()

    @on(RowList.RowChosen)
    def _on_row_chosen(self, message: RowList.RowChosen) -> None:
        message.stop()
        event = self._selected_event()
        if event is not None and (target := event_target(event)) is not None:
            self.post_message(self.EventChosen(*target))

    def _open_filter(self, opened: bool) -> None:
        field = self.query_one("#log-text", Input)
        field.set_class(opened, "open")
        field.disabled = not opened  # a hidden field must get no keys
        (field if opened else self.query_one(RowList)).focus()

    def _fill(self) -> None:
        self._shown = shown = filter_events(self._events, self._level, self._text)
        # Equal events may follow each other, but the reader keeps each as one object.
        self.query_one(RowList).set_rows(
            [id(event) for event in shown], lambda row: _line(shown[row])
        )
        self._update_lines()

    def _update_lines(self) -> None:
        rows, event = self.query_one(RowList), self._selected_event()
        text = f" · {self._text!r}" if self._text else ""
        where = "follows new events" if rows.follows_new_rows else "press end to follow new events"
        level = LEVEL_NAMES[self._level]
        head = f"{len(self._shown)} of {len(self._events)} events · {level}{text} · {where}"
        self.query_one("#log-head", Static).update(head)
        self.query_one("#log-event", Static).update(_line(event) if event else "")

    def _selected_event(self) -> Event | None:
        rows = self.query_one(RowList)
        return self._shown[rows.cursor] if rows.cursor < len(self._shown) else None


def _line(event: Event) -> Text:
    return Text(format_event(event), style=STYLES[event.level])

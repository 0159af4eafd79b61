"""Base of the panes of workers, clients and inboxes: a table with a filter and an order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Input, Static

from tui.data.reader import Snapshot
from tui.data.update_counts import UpdateCounts
from tui.widgets.cell import Cell
from tui.widgets.live_table import Column, LiveTable

RowNoun = Literal["client", "worker"]


class TablePane(Vertical):
    """Summary line, table, and a hidden line to type a filter into."""

    COLUMNS: ClassVar[tuple[Column, ...]] = ()
    NOUN: ClassVar[RowNoun] = "client"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "sort", "sort"),
        Binding("slash", "filter", "find", key_display="/"),
        Binding("escape", "clear_filter", "no filter", show=False),
    ]

    class RowChosen(Message):
        """A row was chosen, to open its history."""

        def __init__(self, noun: RowNoun, key: str) -> None:
            super().__init__()
            self.noun = noun
            self.key = key

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.counts = UpdateCounts()
        self._snapshot: Snapshot | None = None

    def compose(self) -> ComposeResult:
        yield Static(classes="summary", markup=False)
        yield LiveTable(self.COLUMNS)
        yield Input(placeholder="show rows that contain …; escape shows all", compact=True)

    def rows(self, snapshot: Snapshot) -> dict[str, dict[str, Cell]]:
        """Return the cells of each row, by key."""
        raise NotImplementedError

    @property
    def selected(self) -> str | None:
        return self.query_one(LiveTable).selected

    def show(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        rows, text = self.rows(snapshot), self.query_one(Input).value.strip().lower()
        kept = {k: cells for k, cells in rows.items() if _contains(cells, text)} if text else rows
        table = self.query_one(LiveTable)
        table.fill(kept)
        shown = f"{len(kept):,} of {len(rows):,} {self.NOUN}s, by {table.sort_title}"
        shown += f", with {text!r}" if text else ""
        shown = shown if rows else f"no {self.NOUN}s"
        summary, heading = self.query_one(".summary", Static), self.heading(snapshot, shown)
        if str(summary.content) != heading:  # an update lays out the whole screen again
            summary.update(heading)

    def heading(self, snapshot: Snapshot, shown: str) -> str:
        """Return the text above the table; `shown` names number, order and filter of the rows."""
        return shown

    def action_sort(self) -> None:
        self.query_one(LiveTable).next_sort()

    def action_filter(self) -> None:
        line = self.query_one(Input)
        line.display = True
        line.focus()

    def action_clear_filter(self) -> None:
        line = self.query_one(Input)
        line.value = ""
        line.display = False
        self.query_one(LiveTable).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._show_again()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go back to the table and keep the filter."""
        event.stop()
        self.query_one(LiveTable).focus()

    @on(LiveTable.RowChosen)
    def _on_row_chosen(self, message: LiveTable.RowChosen) -> None:
        message.stop()
        self.post_message(self.RowChosen(self.NOUN, str(message.key)))

    @on(LiveTable.SortChanged)
    def _on_sort_changed(self, message: LiveTable.SortChanged) -> None:
        message.stop()
        self._show_again()

    def on_resize(self, _: events.Resize) -> None:
        self._show_again()

    def _show_again(self) -> None:
        if self._snapshot is not None:
            self.show(self._snapshot)


def _contains(cells: Mapping[str, Cell], text: str) -> bool:
    return any(text in cell.text.lower() for cell in cells.values())

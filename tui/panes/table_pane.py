"""What the panes of workers and clients share: a live table with a filter and an order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

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


class TablePane(Vertical):
    """A summary line, the table, and a line to type a filter into."""

    COLUMNS: ClassVar[tuple[Column, ...]] = ()
    NOUN: ClassVar[str] = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "sort", "sort"),
        Binding("slash", "filter", "find", key_display="/"),
        Binding("escape", "unfilter", "no filter", show=False),
    ]

    class RowChosen(Message):
        """Somebody wants to know more of a row."""

        def __init__(self, noun: str, key: str) -> None:
            super().__init__()
            self.noun = noun
            self.key = key

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.tally = UpdateCounts()
        self._snapshot: Snapshot | None = None

    def compose(self) -> ComposeResult:
        """The three parts; the filter is hidden."""
        yield Static(classes="summary", markup=False)
        yield LiveTable(self.COLUMNS)
        yield Input(placeholder="rows that contain …; escape ends", compact=True)

    def rows(self, snapshot: Snapshot) -> dict[str, dict[str, Cell]]:
        """What to show, by key."""
        raise NotImplementedError

    @property
    def selected(self) -> str | None:
        """The key of the row under the cursor."""
        return self.query_one(LiveTable).selected

    def show(self, snapshot: Snapshot) -> None:
        """Show a snapshot on the screen."""
        self._snapshot = snapshot
        rows, wanted = self.rows(snapshot), self.query_one(Input).value.strip().lower()
        kept = {k: cells for k, cells in rows.items() if matches(cells, wanted)} if wanted else rows
        table = self.query_one(LiveTable)
        table.fill(kept)
        shown = f"{len(kept):,} of {len(rows):,} {self.NOUN}s, by {table.sorting}"
        shown += f", with {wanted!r}" if wanted else ""
        shown = shown if rows else f"no {self.NOUN}s"
        summary, heading = self.query_one(".summary", Static), self.heading(snapshot, shown)
        if str(summary.content) != heading:  # every update lays out the whole screen anew
            summary.update(heading)

    def heading(self, snapshot: Snapshot, shown: str) -> str:
        """What stands above the table.

        Args:
            snapshot: What is shown.
            shown: Of it: how many rows, in which order, with which filter.
        """
        return shown

    def action_sort(self) -> None:
        """By the next column."""
        self.query_one(LiveTable).next_sort()

    def action_filter(self) -> None:
        """Open the line, with what is in it."""
        line = self.query_one(Input)
        line.display = True
        line.focus()

    def action_unfilter(self) -> None:
        """Show all rows."""
        line = self.query_one(Input)
        line.value = ""
        line.display = False
        self.query_one(LiveTable).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Every letter counts at once."""
        event.stop()
        self._again()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Back to the table; the filter stays."""
        event.stop()
        self.query_one(LiveTable).focus()

    @on(LiveTable.RowChosen)
    def _chosen(self, message: LiveTable.RowChosen) -> None:
        """Enter, or a second click."""
        message.stop()
        self.post_message(self.RowChosen(self.NOUN, str(message.key)))

    @on(LiveTable.SortChanged)
    def _sorted(self, message: LiveTable.SortChanged) -> None:
        """Say so above the table."""
        message.stop()
        self._again()

    def on_resize(self, _: events.Resize) -> None:
        """Other columns may fit."""
        self._again()

    def _again(self) -> None:
        if self._snapshot is not None:
            self.show(self._snapshot)


def matches(cells: Mapping[str, Cell], wanted: str) -> bool:
    """Whether any cell contains the text."""
    return any(wanted in cell.text.lower() for cell in cells.values())

"""What the panes of workers and clients share: a live table with a filter and an order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import DataTable, Input, Static

from common.records import VersionSummary
from tui import figures
from tui.feed import Look
from tui.figures import Done
from tui.widgets.cell import Cell
from tui.widgets.table import Column, LiveTable


class History:
    """Updates by client and by worker; counted anew only when there is a new version."""

    def __init__(self) -> None:
        self._last: VersionSummary | None = None
        self._clients: Mapping[str, Sequence[Done]] = {}
        self._workers: Mapping[str, Sequence[Done]] = {}
        self._totals: Mapping[str, float] = {}

    def by_client(self, versions: Sequence[VersionSummary]) -> Mapping[str, Sequence[Done]]:
        """See `figures.by_client`."""
        self._count(versions)
        return self._clients

    def by_worker(self, versions: Sequence[VersionSummary]) -> Mapping[str, Sequence[Done]]:
        """See `figures.by_worker`."""
        self._count(versions)
        return self._workers

    def total(self, client: str) -> float:
        """The sum of a client's weights, over all versions counted."""
        return self._totals.get(client, 0.0)

    def _count(self, versions: Sequence[VersionSummary]) -> None:
        if versions and versions[-1] != self._last:
            self._last = versions[-1]
            self._clients = figures.by_client(versions)
            self._workers = figures.by_worker(versions)
            self._totals = {
                name: sum(update.weight for _, update in done)
                for name, done in self._clients.items()
            }


class Listing(Vertical):
    """A summary line, the table, and a line to type a filter into."""

    COLUMNS: ClassVar[tuple[Column, ...]] = ()
    NOUN: ClassVar[str] = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "sort", "sort"),
        Binding("slash", "filter", "find", key_display="/"),
        Binding("escape", "unfilter", "no filter", show=False),
    ]

    class Chosen(Message):
        """Somebody wants to know more of a row."""

        def __init__(self, noun: str, key: str) -> None:
            super().__init__()
            self.noun = noun
            self.key = key

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.history = History()
        self._look: Look | None = None

    def compose(self) -> ComposeResult:
        """The three parts; the filter is hidden."""
        yield Static(classes="summary", markup=False)
        yield LiveTable(self.COLUMNS)
        yield Input(placeholder="rows that contain …; escape ends", compact=True)

    def rows(self, look: Look) -> dict[str, dict[str, Cell]]:
        """What to show, by key."""
        raise NotImplementedError

    @property
    def selected(self) -> str | None:
        """The key of the row under the cursor."""
        return self.query_one(LiveTable).selected

    def show(self, look: Look) -> None:
        """Put a look on the screen."""
        self._look = look
        rows, wanted = self.rows(look), self.query_one(Input).value.strip().lower()
        kept = {k: cells for k, cells in rows.items() if matches(cells, wanted)} if wanted else rows
        table = self.query_one(LiveTable)
        table.fill(kept)
        shown = f"{len(kept):,} of {len(rows):,} {self.NOUN}s, by {table.sorting}"
        shown += f", with {wanted!r}" if wanted else ""
        shown = shown if rows else f"no {self.NOUN}s"
        self.query_one(".summary", Static).update(self.heading(look, shown))

    def heading(self, look: Look, shown: str) -> str:
        """What stands above the table.

        Args:
            look: What is shown.
            shown: Of it: how many rows, in which order, with which filter.
        """
        return shown

    def action_sort(self) -> None:
        """By the next column."""
        self.query_one(LiveTable).next_sort()
        self._again()

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

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Enter, or a second click."""
        event.stop()
        if event.row_key.value is not None:
            self.post_message(self.Chosen(self.NOUN, event.row_key.value))

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """The table has sorted itself; say so."""
        event.stop()
        self._again()

    def on_resize(self, _: events.Resize) -> None:
        """Other columns may fit."""
        self._again()

    def _again(self) -> None:
        if self._look is not None:
            self.show(self._look)


def matches(cells: Mapping[str, Cell], wanted: str) -> bool:
    """Whether any cell contains the text."""
    return any(wanted in cell.text.lower() for cell in cells.values())

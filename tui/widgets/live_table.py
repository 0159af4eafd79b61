"""Sorted table with keyed rows, whose cursor stays on its row while values change.

A thousand rows twice a second are cheap only if rows that stay the same or are out of sight cost
nothing. Textual's `DataTable` draws every cell in sight again when one has changed, each with a
renderable of its own, which takes ten times as long; this table draws lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.strip import Strip

from tui.widgets.cell import Cell
from tui.widgets.row_list import RowList


@dataclass(frozen=True)
class Column:
    """A column of a live table.

    Where space is short, columns of a high rank are left out first; those of rank 0 never are.
    """

    key: str
    title: str
    width: int  # in characters
    rank: int = 0
    right: bool = False  # alignment


def fit_columns(columns: Sequence[Column], width: int) -> tuple[Column, ...]:
    """Return the columns that fit, in their order, and those of rank 0 in any case."""
    left = width
    chosen = set()
    for column in sorted(columns, key=lambda column: column.rank):  # stable: left to right
        needed = column.width + 2  # a space on either side
        if column.rank == 0 or needed <= left:
            chosen.add(column.key)
            left -= needed
    return tuple(column for column in columns if column.key in chosen)


class LiveTable(RowList):
    """Table of cells by row key and column key."""

    def __init__(self, columns: Sequence[Column], **arguments: Any) -> None:
        """Create an empty table, sorted by the first column; as many columns are shown as fit."""
        super().__init__(header="columns", arrivals="anywhere", **arguments)
        self._all = tuple(columns)
        self._shown: tuple[Column, ...] = ()
        self._rows: Mapping[str, Mapping[str, Cell]] = {}
        self._ranked: list[str] = []  # keys in the order of the screen
        self._lines: dict[str, tuple[Mapping[str, Cell], Strip]] = {}  # by key: cells as drawn
        self.sort_key = columns[0].key
        self.descending = False

    def fill(self, rows: Mapping[str, Mapping[str, Cell]]) -> None:
        """Replace the rows; one that is the same object as before is not drawn again."""
        shown = fit_columns(self._all, (self.size.width or self.app.size.width) - 1)
        if shown != self._shown:
            self._shown = shown
            self._lines.clear()
        self._rows = rows
        self._rank()

    @property
    def selected(self) -> str | None:
        return self._ranked[self.cursor] if self._ranked else None

    def sort_by(self, key: str) -> None:
        """Sort by a column; a second time, in the opposite order."""
        column = next(column for column in self._all if column.key == key)
        self.descending = not self.descending if key == self.sort_key else column.right
        self.sort_key = key
        self._rank()
        self.post_message(self.SortChanged(self, self.key))

    def next_sort(self) -> None:
        keys = [column.key for column in self._shown] or [self.sort_key]
        at = keys.index(self.sort_key) if self.sort_key in keys else -1
        self.sort_by(keys[(at + 1) % len(keys)])

    @property
    def sort_title(self) -> str:
        """The title of the sorted column, with an arrow."""
        column = next(column for column in self._all if column.key == self.sort_key)
        return f"{column.title} {self._arrow}"

    class SortChanged(RowList.CursorMoved):
        """The rows are sorted by another column or in another order."""

    def heading(self, width: int) -> Strip:
        """Return the titles, with an arrow where the rows are sorted, if it has room."""
        segments = []
        for column in self._shown:
            marked = f"{column.title} {self._arrow}"
            sorts = column.key == self.sort_key and cell_len(marked) <= column.width
            title = Cell(marked if sorts else column.title, "", "bold", column.right)
            segments.append(_segment(title, column.width))
        return Strip(segments).adjust_cell_length(width)

    def line(self, row: int, width: int) -> Strip:
        key = self._ranked[row]
        cells = self._rows[key]
        known = self._lines.get(key)
        if known is not None and known[0] is cells and known[1].cell_length == width:
            return known[1]
        segments = [_segment(cells[column.key], column.width) for column in self._shown]
        strip = Strip(segments).adjust_cell_length(width)
        self._lines[key] = cells, strip
        return strip

    def click_heading(self, x: int) -> None:
        for column in self._shown:
            x -= column.width + 2
            if x < 0:
                self.sort_by(column.key)
                return

    @property
    def _arrow(self) -> str:
        return "↓" if self.descending else "↑"

    def _rank(self) -> None:
        by_key = sorted(self._rows)  # equal rows keep a fixed order
        self._ranked = sorted(
            by_key, key=lambda key: self._rows[key][self.sort_key].order, reverse=self.descending
        )
        if len(self._lines) > 2 * len(self._ranked):
            self._lines.clear()
        self.set_rows(self._ranked, lambda row: Text())


@lru_cache(maxsize=256)
def _style(name: str) -> Style | None:
    return Style.parse(name) if name else None


def _segment(cell: Cell, width: int) -> Segment:
    """Return a cell with a space on either side."""
    text = cell.text
    if cell_len(text) > width:
        text = set_cell_size(text, width - 1) + "…"
    room = " " * (width - cell_len(text))
    return Segment(f" {room}{text} " if cell.right else f" {text}{room} ", _style(cell.style))

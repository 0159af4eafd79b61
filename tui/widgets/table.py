"""A table that lives: rows are keyed, only what changed is touched, the cursor stays on its row.

A thousand rows are redrawn twice a second without a thought only if nothing is done for the cells
that stay the same; what lies outside of the window is not rendered by `DataTable` at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text
from textual.widgets import DataTable

from tui.widgets.cell import Cell

BULK = 20  # rows that come or go at once: beyond, filling anew is cheaper than one by one


@dataclass(frozen=True)
class Column:
    """A column of a live table.

    Attributes:
        key: Its name in the code.
        title: Its name on the screen.
        width: In characters.
        rank: Where space is short, columns of a high rank go first.
        right: Numbers are on the right.
    """

    key: str
    title: str
    width: int
    rank: int = 0
    right: bool = False


def fitting(columns: Sequence[Column], width: int) -> tuple[Column, ...]:
    """The columns that fit, in their order; those of rank 0 always do."""
    left = width
    chosen = set()
    for column in sorted(columns, key=lambda column: column.rank):  # stable: else left to right
        needed = column.width + 2  # a space on either side
        if column.rank == 0 or needed <= left:
            chosen.add(column.key)
            left -= needed
    return tuple(column for column in columns if column.key in chosen)


class LiveTable(DataTable[Cell]):
    """Rows by key; `fill` makes the table show them."""

    def __init__(self, columns: Sequence[Column], **arguments: Any) -> None:
        """Empty; sorted by the first column.

        Args:
            columns: All that there may be; as many are shown as fit.
            arguments: Textual's own.
        """
        super().__init__(cursor_type="row", zebra_stripes=False, **arguments)
        self._all = tuple(columns)
        self._shown: tuple[Column, ...] = ()
        self._rows: dict[str, Mapping[str, Cell]] = {}
        self._ranked: list[str] = []  # keys as they stand on the screen
        self.sort_key = columns[0].key
        self.descending = False

    def fill(self, rows: Mapping[str, Mapping[str, Cell]]) -> None:
        """Show these rows, and no others.

        Args:
            rows: By key; each a cell per column.
        """
        width = self.size.width or self.app.size.width
        if fitting(self._all, width - 1) != self._shown:
            self._shown = fitting(self._all, width - 1)
            self._refill(rows, columns=True)
        elif len(rows.keys() ^ self._rows.keys()) > BULK:
            self._refill(rows)
        else:
            self._change(rows)
        self._rows = dict(rows)

    @property
    def selected(self) -> str | None:
        """The key of the row under the cursor."""
        row = self.cursor_row
        return self._ranked[row] if 0 <= row < len(self._ranked) else None

    def sort_by(self, key: str) -> None:
        """Sort by a column; by the same again, the other way round."""
        column = next(column for column in self._all if column.key == key)
        self.descending = not self.descending if key == self.sort_key else column.right
        self.sort_key = key
        self._rank(self.selected)

    def next_sort(self) -> None:
        """Sort by the next column."""
        keys = [column.key for column in self._shown] or [self.sort_key]
        at = keys.index(self.sort_key) if self.sort_key in keys else -1
        self.sort_by(keys[(at + 1) % len(keys)])

    @property
    def sorting(self) -> str:
        """What the rows are sorted by, in words."""
        column = next(column for column in self._all if column.key == self.sort_key)
        return f"{column.title} {'↓' if self.descending else '↑'}"

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """A click on a header sorts."""
        if event.column_key.value is not None:
            self.sort_by(event.column_key.value)

    def _refill(self, rows: Mapping[str, Mapping[str, Cell]], columns: bool = False) -> None:
        kept, scrolled = self.selected, self.scroll_y
        self.clear(columns=columns)
        if columns:
            for column in self._shown:
                title = Text(column.title, justify="right" if column.right else "left")
                self.add_column(title, key=column.key, width=column.width)
        self._ranked = self._order(rows)
        for key in self._ranked:
            self.add_row(*(rows[key][column.key] for column in self._shown), key=key)
        self._back_to(kept)
        self.scroll_to(y=scrolled, animate=False)

    def _change(self, rows: Mapping[str, Mapping[str, Cell]]) -> None:
        kept = self.selected
        for key in self._rows.keys() - rows.keys():
            self.remove_row(key)
        for key, cells in rows.items():
            before = self._rows.get(key)
            if before is None:
                self.add_row(*(cells[column.key] for column in self._shown), key=key)
            elif before is not cells and before != cells:
                for column in self._shown:
                    if before[column.key] != cells[column.key]:
                        self.update_cell(key, column.key, cells[column.key])
        self._rows = dict(rows)
        self._rank(kept, moved=len(self._ranked) != len(rows))

    def _rank(self, kept: str | None, moved: bool = False) -> None:
        """Bring the rows into order, if they are not, and the cursor back to its row."""
        ranked = self._order(self._rows)
        if ranked == self._ranked and not moved:
            return
        place = {key: at for at, key in enumerate(ranked)}
        self._ranked = ranked
        first = self._all[0].key  # of which every row has its own
        names = {self._rows[key][first]: place[key] for key in ranked}
        self.sort(first, key=names.__getitem__)
        self._back_to(kept)

    def _order(self, rows: Mapping[str, Mapping[str, Cell]]) -> list[str]:
        by_key = sorted(rows)  # rows that are equal stay in a fixed order
        return sorted(
            by_key, key=lambda key: rows[key][self.sort_key].order, reverse=self.descending
        )

    def _back_to(self, key: str | None) -> None:
        if key in self._ranked:
            self.move_cursor(row=self._ranked.index(key), scroll=False)

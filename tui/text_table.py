"""Tables of rich whose cells are text.

In a plain `Table` a string is markup: the name `[/x]` of another machine would end the program.
"""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from common.text import one_line


class TextTable(Table):
    """Table in which strings are shown as they are, in one line and without terminal escapes."""

    def add_column(self, header: RenderableType = "", *rest: Any, **settings: Any) -> None:
        super().add_column(as_text(header), *rest, **settings)

    def add_row(self, *cells: RenderableType | None, **settings: Any) -> None:
        super().add_row(*(None if cell is None else as_text(cell) for cell in cells), **settings)


def as_text(cell: RenderableType) -> RenderableType:
    """Return a string as text that is not parsed; anything else unchanged."""
    return Text(one_line(cell)) if isinstance(cell, str) else cell

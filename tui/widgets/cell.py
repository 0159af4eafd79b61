"""One cell of a live table: what it shows, and what it is sorted by."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from tui.formatting import MISSING, format_number
from tui.widgets.badge import badge

LEAST = float("-inf")  # what is missing sorts below every number


@dataclass(frozen=True)
class Cell:
    """Frozen, so that a table can tell what has changed; rich renders it by `__rich__`."""

    text: str
    order: float | str
    style: str = ""
    right: bool = False

    def __rich__(self) -> Text:
        shown = Text(self.text, self.style, no_wrap=True, overflow="ellipsis")
        shown.justify = "right" if self.right else "left"
        return shown


def word(text: str | None, style: str = "") -> Cell:
    """A name."""
    return Cell(text or MISSING, text or "", style)


def number(value: float | None, digits: int = 0, suffix: str = "") -> Cell:
    """A number, right-aligned."""
    if value is None:
        return Cell(MISSING, LEAST, right=True)
    shown = f"{value:,.0f}" if digits == 0 else format_number(value, digits)
    return Cell(shown + suffix, value, right=True)


def state(name: str) -> Cell:
    """A state with its symbol."""
    shown = badge(name)
    return Cell(shown.plain, name, str(shown.style))

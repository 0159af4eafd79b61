"""Cells of a live table, with the values by which their columns are sorted."""

from __future__ import annotations

from dataclasses import dataclass

from tui.formatting import MISSING, format_number
from tui.widgets.badge import badge

LEAST = float("-inf")  # a missing number sorts below all others


@dataclass(frozen=True)
class Cell:
    """Text of a cell and the value by which its column is sorted.

    Cells are frozen so that a table can tell which ones have changed.
    """

    text: str
    order: float | str
    style: str = ""
    right: bool = False


def word(text: str | None, style: str = "") -> Cell:
    """Return a cell with a text, or a dash."""
    return Cell(text or MISSING, text or "", style)


def number(value: float | None, digits: int = 0, suffix: str = "") -> Cell:
    """Return a cell with a number, aligned to the right."""
    if value is None:
        return Cell(MISSING, LEAST, right=True)
    shown = f"{value:,.0f}" if digits == 0 else format_number(value, digits)
    return Cell(shown + suffix, value, right=True)


def state(name: str) -> Cell:
    """Return a cell with a state and its symbol."""
    shown = badge(name)
    return Cell(shown.plain, name, str(shown.style))

"""Bars of characters, which need no colour and fit into a table cell."""

from __future__ import annotations

FULL, EMPTY = "█", "░"


def progress_bar(done: float, total: float, width: int) -> str:
    """Return a bar of `width` characters, which is full only when all is done."""
    share = min(1.0, max(0.0, done / total)) if total > 0 else 0.0
    full = int(share * width)
    return FULL * full + EMPTY * (width - full)


def histogram_bar(value: float, largest: float, width: int) -> str:
    """Return a bar of blocks; any value above 0 has at least one."""
    if value <= 0 or largest <= 0:
        return ""
    return FULL * max(1, min(width, round(width * value / largest)))

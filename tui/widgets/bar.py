"""A progress bar of characters: works in a cell, and says the same without colour. Pure."""

from __future__ import annotations

FULL, EMPTY = "█", "░"


def bar(done: float, total: float, width: int) -> str:
    """So much of `total` is done, as a bar of `width` characters."""
    share = min(1.0, max(0.0, done / total)) if total > 0 else 0.0
    full = int(share * width)  # full only when all is done
    return FULL * full + EMPTY * (width - full)

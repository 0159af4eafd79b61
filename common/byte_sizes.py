"""Sizes in bytes as text, in one unit system everywhere."""

from __future__ import annotations


def format_bytes(nbytes: float) -> str:
    """Return a size in powers of 1024, such as `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} TiB"

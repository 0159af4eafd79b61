"""Figures for documents: made without a screen, as PNG bytes.

matplotlib is imported when something is drawn: it takes half a second, once per process.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, which lays itself out."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # see above

    return Figure(figsize=(width, height), layout="constrained")


def to_png(drawn: Figure) -> bytes:
    """A figure as a file."""
    out = io.BytesIO()
    drawn.savefig(out, dpi=110, format="png")
    return out.getvalue()

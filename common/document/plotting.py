"""Figures for documents, drawn without a display, as PNG bytes.

matplotlib is imported when something is drawn, because it takes half a second.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches, with constrained layout."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # see above

    return Figure(figsize=(width, height), layout="constrained")


def to_png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, dpi=110, format="png")
    return out.getvalue()

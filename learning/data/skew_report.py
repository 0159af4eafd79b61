"""Table and picture of labels over clients, which show how unlike the clients are.

For people only: a federation's result means little without its partition. In the data path: called
by `learning.data.prepared_data` when a folder is prepared.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from common.text import one_line

_NAME = 36  # characters of a label that are shown
_SHOWN = 20  # labels with a colour of their own: as many as the colour table has
_TALLEST = 12.0  # inches; with more clients than fit, bars become thinner
_NAMED = 50  # client names that fit; of more clients, only every second (third, …) is named
_WIDE = 100  # columns of a table that a terminal shows without breaking its lines
_OTHERS = (0.92, 0.92, 0.92)

LabelCounts = Sequence[Mapping[str, int]]
"""Rows by label, one mapping per client."""


def skew_table(counts: LabelCounts) -> str:
    """Return a table of labels down and clients across, with both sums; transposed if too wide."""
    clients = range(len(counts))
    head = ["label", *(f"client_{i}" for i in clients), "all"]
    lines = [head]
    for label in _labels(counts):
        own = [one.get(label, 0) for one in counts]
        lines.append([_short(label), *map(str, own), str(sum(own))])
    sums = [sum(one.values()) for one in counts]
    lines.append(["rows", *map(str, sums), str(sum(sums))])
    turned = [list(column) for column in zip(*lines, strict=True)]
    turned[0][0] = "client"
    return _aligned(lines if _width(lines) <= max(_WIDE, _width(turned)) else turned)


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def _width(lines: Sequence[Sequence[str]]) -> int:
    return sum(_widths(lines)) + 2 * (len(lines[0]) - 1)


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = _widths(lines)
    return "".join(
        "  ".join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        )
        + "\n"
        for line in lines
    )


def plot_skew(counts: LabelCounts, what: str, path: Path) -> None:
    """Write a PNG with one stacked bar per client: its rows, coloured by label.

    Labels beyond the most frequent are drawn together, in grey. `what` names the rows and their
    kind: `instructions (sft)`.
    """
    drawn = _bar_widths(counts)
    colours = _colours(len(drawn))
    clients = [f"client_{i}" for i in range(len(counts))]
    height = 1.5 + max(0.36 * len(clients), 0.21 * len(drawn))
    figure = Figure(figsize=(9, min(height, _TALLEST)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    left = [0] * len(counts)
    step = -(-len(clients) // _NAMED)
    edge = 0.5 if step == 1 else 0.0  # points; a thin bar would be all edge
    for (name, width), colour in zip(drawn.items(), colours, strict=True):
        axes.barh(
            clients, width, 0.72, left=left, color=colour, label=name, edgecolor="white", lw=edge
        )
        left = [a + b for a, b in zip(left, width, strict=True)]
    axes.set_yticks(range(0, len(clients), step), clients[::step])
    for place, total in list(enumerate(left))[::step]:
        axes.text(total, place, f"  {total}", va="center", fontsize=9, color="0.3")
    axes.invert_yaxis()
    axes.margins(x=0.08, y=0.02)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("rows")
    axes.set_title(f"Which client holds which {what}", loc="left", fontsize=11)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    with warnings.catch_warnings():  # a script that the font lacks shows as boxes; see the table
        warnings.filterwarnings("ignore", "Glyph")
        figure.savefig(path, dpi=120)


def _bar_widths(counts: LabelCounts) -> dict[str, list[int]]:
    """Return rows per client of each label that gets a colour, sorted by name, and of the rest."""
    sizes: Counter[str] = Counter()
    for one in counts:
        sizes.update(one)
    shown = sorted(label for label, _ in sizes.most_common(_SHOWN))
    drawn = {}
    for label in shown:
        # matplotlib hides a legend entry that begins with _, and reads $ as the start of math.
        name = _short(label).replace("$", "\\$")
        name = f" {name}" if name.startswith("_") else name
        while name in drawn:  # two long labels may begin alike
            name += " "
        drawn[name] = [one.get(label, 0) for one in counts]
    if len(sizes) > _SHOWN:
        rest = [sum(one.values()) - sum(one.get(label, 0) for label in shown) for one in counts]
        drawn[f"{len(sizes) - _SHOWN} other labels"] = rest
    return drawn


def _labels(counts: LabelCounts) -> list[str]:
    return sorted({label for one in counts for label in one})


def _short(label: str) -> str:
    # An escape sequence in a label would control the terminal.
    line = one_line(" ".join(label.split()))
    return line if len(line) <= _NAME else line[: _NAME - 1] + "…"


def _colours(n: int) -> list[tuple[float, ...]]:
    """Return distinct colours in an order that puts unlike ones side by side; grey for the rest."""
    wheel = colormaps["tab20"]
    order = [*range(0, 20, 2), *range(1, 20, 2)]
    return [tuple(wheel(order[i])) if i < _SHOWN else _OTHERS for i in range(n)]

"""How unlike the clients are: a table and a picture of labels over clients.

Read by people only, before a run: a federation's result means little without its partition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_NAME = 36  # characters of a label that are shown

Counts = Sequence[Mapping[str, int]]
"""Rows by label, one mapping per client."""


def table(counts: Counts) -> str:
    """Labels down, clients across, with the sums of both."""
    clients = range(len(counts))
    head = ["label", *(f"client_{i}" for i in clients), "all"]
    lines = [head]
    for label in _labels(counts):
        own = [one.get(label, 0) for one in counts]
        lines.append([label[:_NAME], *map(str, own), str(sum(own))])
    sums = [sum(one.values()) for one in counts]
    lines.append(["rows", *map(str, sums), str(sum(sums))])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "".join(
        "  ".join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        )
        + "\n"
        for line in lines
    )


def picture(counts: Counts, path: Path) -> None:
    """Writes a PNG with one stacked bar per client: its rows, coloured by label."""
    names = _labels(counts)
    height = 1.6 + 0.42 * max(len(counts), 0.6 * len(names))
    figure = Figure(figsize=(9, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = _colours(len(names))
    left = [0] * len(counts)
    clients = [f"client_{i}" for i in range(len(counts))]
    for name, colour in zip(names, colours, strict=True):
        width = [one.get(name, 0) for one in counts]
        axes.barh(clients, width, left=left, color=colour, label=name[:_NAME], edgecolor="white")
        left = [a + b for a, b in zip(left, width, strict=True)]
    for place, total in enumerate(left):
        axes.text(total, place, f" {total}", va="center", fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.08)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("rows")
    axes.set_title("Which client holds what", loc="left", fontsize=11)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)


def _labels(counts: Counts) -> list[str]:
    return sorted({label for one in counts for label in one})


def _colours(n: int) -> list[tuple[float, ...]]:
    """Distinct colours, in an order that puts unlike ones side by side."""
    wheel = colormaps["tab20"]
    order = [*range(0, 20, 2), *range(1, 20, 2)]
    return [tuple(wheel(order[i % 20])) for i in range(n)]

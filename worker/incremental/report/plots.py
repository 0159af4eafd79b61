"""Pictures of a stream as PNG bytes: each task over time, and the matrix of performances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.document import plotting
from worker.incremental.report import report
from worker.incremental.report.history import ClientHistory, LearningStream
from worker.incremental.report.stream import (
    OWN,
    StreamFigures,
    performance_over_time,
    stream_figures,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OWN = "#7a8493"
_TASKS = ("#2f6fb0", "#e08a3c", "#4a9a62", "#a8559a", "#c2493d", "#8a7a2f", "#3a9aa5", "#6a5fb5")
_REJECTED = "#c2493d"
_MAX_LABELLED_TASKS = 12  # beyond, the cells of the matrix have no room for numbers


def pictures(histories: Sequence[ClientHistory]) -> dict[str, bytes]:
    """Return a picture for each stream that the document shows, by file name."""
    return {
        report.picture_name(history.client, stream): plotting.to_png(
            _picture(history.client, stream)
        )
        for history in histories
        for stream in report.latest_streams(history)
        if stream.measurements
    }


def _picture(client: str, stream: LearningStream) -> Figure:
    known = stream_figures(stream.measurements)
    size = max(3.6, min(7.0, 0.8 * len(known.tasks) + 1.8))
    figure = plotting.new_figure(5.6 + size, max(3.6, size))
    figure.suptitle(f"{client}, {stream.kind} rows", fontsize=11, color="0.25")
    across = figure.add_gridspec(1, 2, width_ratios=(5.6, size))
    _over_time(figure.add_subplot(across[0]), stream, known)
    _matrix(figure.add_subplot(across[1]), known)
    return figure


def _over_time(axes: Axes, stream: LearningStream, known: StreamFigures) -> None:
    """Plot each task over the batches; the measurement before the stream is at position 0."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415  # as in `common.document.plotting`

    places = {batch.number: at for at, batch in enumerate(stream.batches, 1)}
    for at, (task, points) in enumerate(performance_over_time(stream.measurements).items()):
        x, y = [places.get(batch, 0) for batch, _ in points], [value for _, value in points]
        if task == OWN:
            axes.plot(x, y, "s--", color=_OWN, ms=4, label=report.task_name(task))
        else:
            axes.plot(x, y, "o-", color=_TASKS[at % len(_TASKS)], ms=4, label=task)
    rejected = [places[batch.number] for batch in stream.batches if not batch.accepted]
    for place in rejected:
        axes.axvline(
            place,
            color=_REJECTED,
            linestyle=":",
            linewidth=1.2,
            label="batch rejected" if place == rejected[0] else None,
        )
    axes.set_xlabel("batch")
    axes.set_ylabel(known.metric)
    axes.set_xlim(-0.4, len(stream.batches) + 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)


def _matrix(axes: Axes, known: StreamFigures) -> None:
    rows = [[float("nan") if v is None else v for v in row] for row in known.matrix]
    axes.imshow(rows, cmap="Blues" if known.metric == "accuracy" else "Blues_r", aspect="auto")
    names = [report.task_name(task.task) for task in known.tasks]
    places = range(len(names))
    axes.set_xticks(places, names, rotation=30, ha="right", fontsize=8)
    down = ["before" if task.task == OWN else task.task for task in known.tasks]
    axes.set_yticks(places, down, fontsize=8)
    axes.set_title(f"{known.metric}: learned ↓, measured →", loc="left", fontsize=9)
    if len(names) > _MAX_LABELLED_TASKS:
        return
    for i, row in enumerate(known.matrix):
        for j, value in enumerate(row):
            text = report.MISSING if value is None else f"{value:.2f}"
            box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.0}
            axes.annotate(text, (j, i), ha="center", va="center", fontsize=8, bbox=box)

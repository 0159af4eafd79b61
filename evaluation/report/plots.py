"""Pictures of a report as PNG bytes: loss by version, and each client before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from common.document import plotting
from common.evaluation.metric_info import MAIN_METRIC, REWARD_KINDS
from common.evaluation.rows import EvaluationRow
from evaluation.assessed import EvaluatedVersion, KindAssessment
from evaluation.report.federated_tables import has_picture
from evaluation.report.history_tables import UNITS
from evaluation.report.report import PhaseHistory, Report, split_by_phase

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Draw = Callable[[Axes, Report, PhaseHistory], None]

_TRAIN, _HOLDOUT, _BEFORE, _AFTER = "#e08a3c", "#2f6fb0", "#b9c4d2", "#2f6fb0"
_LEVEL = "#7a8493"
_PANELS = 3  # in a row
_MAX_CLIENTS = 40  # in a picture


def draw_pictures(report: Report, prefix: str) -> dict[str, bytes]:
    """Return all pictures of a report by file name."""
    pictures = {
        f"{prefix}clients_{each.kind}.png": plotting.to_png(
            draw_client_figure(each, report.assessment.subjects)
        )
        for each in report.assessment.kinds
        if any(one.rows for one in each.pooled)
    }
    if has_picture(report):
        pictures[f"{prefix}evaluations.png"] = plotting.to_png(draw_evaluations(report))
    if histories := split_by_phase(report.phases, report.versions):
        pictures[f"{prefix}loss.png"] = plotting.to_png(_history_figure(report, histories))
    return pictures


def _history_figure(report: Report, histories: Sequence[PhaseHistory]) -> Figure:
    """Draw the loss of each phase by version, in its own unit, and its accuracy if it has one."""
    drawn: list[tuple[Draw, PhaseHistory]] = []
    for history in histories:
        drawn.append((_draw_losses, history))
        if history.accuracy:
            drawn.append((_draw_accuracies, history))
    columns = min(_PANELS, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = plotting.new_figure(7.0 if columns == 1 else 4.8 * columns, 4.0 * rows)
    figure.suptitle(f"Run {report.name}", fontsize=11, color="0.25")
    for place, (draw, history) in enumerate(drawn, 1):
        axes = figure.add_subplot(rows, columns, place)
        axes.set_title(
            f"phase {history.number}: {history.phase.objective}", loc="left", fontsize=10
        )
        draw(axes, report, history)
    lines, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def _draw_losses(axes: Axes, report: Report, history: PhaseHistory) -> None:
    if history.train:
        x, y = zip(*history.train, strict=True)
        axes.plot(x, y, "o-", color=_TRAIN, ms=4, label="training, mean of the updates")
    if history.holdout:
        x, y = zip(*history.holdout, strict=True)
        label = "clients' holdouts, before training"
        axes.plot(x, y, "s--", color=_HOLDOUT, ms=4, label=label)
    key = {"sft": "nats_per_token", "cls": "loss"}.get(history.phase.kind)
    if key:
        _draw_levels(axes, report, history, key)
    axes.set_ylabel(UNITS[history.phase.kind])
    _format_axes(axes, history)


def _draw_accuracies(axes: Axes, report: Report, history: PhaseHistory) -> None:
    x, y = zip(*history.accuracy, strict=True)
    axes.plot(x, y, "s--", color=_HOLDOUT, ms=4, label="clients' holdouts, before training")
    rewards = history.phase.kind in REWARD_KINDS
    key = "reward_accuracy" if rewards else "accuracy"
    _draw_levels(axes, report, history, key, before=not rewards)
    axes.set_ylabel(key.replace("_", " "))
    _format_axes(axes, history)


def _draw_levels(
    axes: Axes, report: Report, history: PhaseHistory, key: str, *, before: bool = True
) -> None:
    """Draw base and assessed version on the held-out rows, as grey lines with their values."""
    kinds = report.assessment.kinds
    found = next((one for one in kinds if one.kind == history.phase.kind), None)
    if found is None:
        return
    titles = [subject.title for subject in report.assessment.subjects]
    sides = {len(titles) - 1: ("left", 0.01)} | ({0: ("right", 0.99)} if before else {})
    for at, (side, place) in sides.items():
        if not found.heldout[at].rows:
            continue
        value = found.heldout[at].values[key]
        axes.axhline(value, linewidth=0.8, color=_LEVEL, zorder=1)
        axes.annotate(
            f"{titles[at]}, held out: {value:.3f}",
            (place, value),
            xycoords=("axes fraction", "data"),
            ha=side,
            va="bottom",
            fontsize=8,
            color="0.35",
            bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5},
        )


def _format_axes(axes: Axes, history: PhaseHistory) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415  # as in `common.document.plotting`

    axes.margins(y=0.12)
    axes.set_xlabel("version")
    axes.set_xlim(history.begin - 0.4, history.versions[-1].version + 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)


def draw_evaluations(report: Report) -> Figure:
    """Draw the main metric of each phase by version: pooled, and that of each client."""
    drawn = [
        (index, own)
        for index in range(len(report.phases))
        if (own := [row for row in report.evaluations if row.phase == index and row.clients])
    ]
    figure = plotting.new_figure(7.0 if len(drawn) == 1 else 4.8 * len(drawn), 4.0)
    for place, (index, rows) in enumerate(drawn, 1):
        axes = figure.add_subplot(1, len(drawn), place)
        title = f"phase {index + 1}: {report.phases[index].objective}"
        axes.set_title(title, loc="left", fontsize=10)
        _draw_evaluations(axes, rows)
    lines, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _draw_evaluations(axes: Axes, rows: Sequence[EvaluationRow]) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415  # as in `common.document.plotting`

    names = sorted({own.client_id for row in rows for own in row.clients})[:_MAX_CLIENTS]
    for number, name in enumerate(names):
        points = [
            (row.version, value) for row in rows if (value := row.client_value(name)) is not None
        ]
        label = "each client" if number == 0 else None
        x, y = [point[0] for point in points], [point[1] for point in points]
        axes.plot(x, y, "-", color=_BEFORE, lw=1, label=label)
    known = [row for row in rows if row.value is not None]
    x, y = [row.version for row in known], [row.value or 0.0 for row in known]
    axes.plot(x, y, "o-", color=_AFTER, ms=4, label="all clients, pooled")
    for row in rows:
        if row.best and row.value is not None:
            axes.plot([row.version], [row.value], "*", color=_TRAIN, ms=13, label="best version")
    axes.set_xlabel("version")
    axes.set_ylabel(rows[0].metric.title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)


def draw_client_figure(found: KindAssessment, subjects: Sequence[EvaluatedVersion]) -> Figure:
    """Draw the main metric of each client, the base's beside the assessed version's."""
    metric = MAIN_METRIC[found.kind]
    known = [name for name, own in found.clients.items() if own[-1].rows]
    shown = known[:_MAX_CLIENTS]
    figure = plotting.new_figure(max(6.0, min(12.0, 1.1 * len(shown) + 2.5)), 3.6)
    axes = figure.add_subplot()
    pair = ((0, _BEFORE), (len(subjects) - 1, _AFTER)) if len(subjects) > 1 else ((0, _AFTER),)
    width = 0.8 / len(pair)
    for step, (at, colour) in enumerate(pair):
        places = [i + (step - (len(pair) - 1) / 2) * width for i in range(len(shown))]
        values = [found.clients[name][at].values[metric.key] for name in shown]
        label = f"{subjects[at].title} (all: {found.pooled[at].values[metric.key]:.3f})"
        bars = axes.bar(places, values, width * 0.94, color=colour, label=label)
        if len(shown) <= 12:
            axes.bar_label(bars, fmt="%.2f", fontsize=8, color="0.35", padding=2)
    axes.set_xticks(range(len(shown)), shown, rotation=0 if len(shown) <= 8 else 60)
    axes.set_ylabel(metric.title)
    if metric.share:
        chance = 1 / max(2, len(found.pooled[-1].confusion))  # two sides of a pair, two ratings
        axes.axhline(chance, linewidth=0.8, color=_LEVEL, linestyle=":")
        axes.set_ylim(0, 1.05)
    more = f" (first {_MAX_CLIENTS} of {len(known)})" if len(known) > _MAX_CLIENTS else ""
    title = f"{metric.title.capitalize()} on each client's validation rows{more}"
    axes.set_title(title, loc="left", fontsize=10)
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    return figure

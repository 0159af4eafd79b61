"""Picture of an experiment: loss over virtual time, or the loss at the end by case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from common.document import plotting
from simulation.experiments.experiment import Experiment
from simulation.experiments.results import CaseSummary, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#7a8493", "#e08a3c", "#b4483e", "#2f6fb0", "#3a9c8b", "#8a5fb0", "#c2a83e", "#555555")
_BAR, _BASELINE = "#2f6fb0", "#7a8493"


def draw(experiment: Experiment, runs: Sequence[Run], summaries: Sequence[CaseSummary]) -> bytes:
    """Return the picture of an experiment as PNG."""
    if experiment.outcome == "time":
        figure = plotting.new_figure(8.0, 4.5)
        _draw_curves(figure.add_subplot(), experiment, runs)
    else:
        figure = plotting.new_figure(8.0, 1.2 + 0.28 * max(1, len(summaries)))
        _draw_bars(figure.add_subplot(), experiment, summaries)
    return plotting.to_png(figure)


def _draw_curves(axes: Axes, experiment: Experiment, runs: Sequence[Run]) -> None:
    for number, case in enumerate(experiment.cases):
        colour = _COLOURS[number % len(_COLOURS)]
        own = [run for run in runs if run.figures.case == case.name]
        for place, run in enumerate(own):
            x = [m.seconds for m in run.measurements]
            y = [m.loss for m in run.measurements]
            label = case.name if place == 0 else None
            axes.plot(x, y, "-", color=colour, lw=1.0, alpha=0.8, label=label)
    targets = {case.settings.get("simulation.target_loss") for case in experiment.cases}
    for target in targets:
        if target is not None:
            axes.axhline(target, color="0.4", lw=0.8, ls=":")
    axes.set_xscale("symlog", linthresh=10)
    axes.set_xlabel("virtual seconds")
    axes.set_ylabel("held-out loss (nats)")
    axes.set_title(experiment.title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)


def _draw_bars(axes: Axes, experiment: Experiment, summaries: Sequence[CaseSummary]) -> None:
    found = [(each.case, each.loss) for each in reversed(summaries) if each.loss is not None]
    names, values = [case for case, _ in found], [loss.mean for _, loss in found]
    errors = [0.0 if loss.high is None else loss.high - loss.mean for _, loss in found]
    colours = [_BASELINE if case == experiment.baseline else _BAR for case in names]
    axes.barh(range(len(names)), values, xerr=errors, color=colours, height=0.7, ecolor="0.3")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    if values:
        axes.set_xlim(left=0.9 * min(values))
    axes.set_xlabel("held-out loss at the end (nats)")
    axes.set_title(experiment.title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)

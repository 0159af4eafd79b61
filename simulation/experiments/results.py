"""Figures of an experiment's simulated runs: one record for each case and seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from simulation.experiments.experiment import Experiment
from simulation.experiments.statistics import Estimate, estimate, estimate_ratio
from simulation.grid.runner import CellResult
from simulation.records import Measurement, read_measurements

_LAST = 3
"""Number of measurements whose mean is the loss at the end."""


@dataclass(frozen=True)
class Figures:
    """Figures of one run.

    Attributes:
        start_loss: Held-out loss of version 0.
        loss, accuracy: Means of the last measurements; accuracy only where there is one.
        target_s, target_updates: Virtual time and updates until the target; None if it was not
            reached.
        seconds: Virtual time of the whole run.
        tasks: Tasks that were issued, those whose answer was not used included.
    """

    case: str
    seed: int
    start_loss: float
    loss: float
    accuracy: float | None
    target_s: float | None
    target_updates: int | None
    seconds: float
    versions: int
    updates: int
    tasks: int
    mb_up: float
    wall_s: float

    def row(self) -> dict[str, Any]:
        """Return the figures as a row of a table."""
        return {
            key: round(value, 5) if isinstance(value, float) else value
            for key, value in asdict(self).items()
        }


@dataclass(frozen=True)
class Run:
    """One run: its figures, and the measurements of its versions."""

    figures: Figures
    measurements: Sequence[Measurement]


def read_run(result: CellResult) -> Run | None:
    """Return a finished cell's run; None if it failed."""
    summary = result.summary
    if summary is None:
        return None
    directory: Path = result.cell.config.run.path
    measured = read_measurements(directory)
    last = measured[-_LAST:]
    reached = next((m for m in measured if m.seconds == summary.target_s), None)
    accuracies = [m.metrics["accuracy"] for m in last if "accuracy" in m.metrics]
    figures = Figures(
        case=result.cell.case,
        seed=summary.seed,
        start_loss=measured[0].loss,
        loss=fmean(m.loss for m in last),
        accuracy=fmean(accuracies) if accuracies else None,
        target_s=summary.target_s,
        target_updates=reached.updates if reached else None,
        seconds=summary.seconds,
        versions=summary.versions,
        updates=summary.updates,
        tasks=summary.tasks,
        mb_up=summary.bytes_up / 1e6,
        wall_s=summary.wall_s,
    )
    return Run(figures, measured)


@dataclass(frozen=True)
class CaseSummary:
    """Figures of one case over its seeds; None where there are none.

    Attributes:
        speedup: Time of the baseline over the case's, paired by seed.
        kept: Drop of the loss over the baseline's drop, paired by seed.
        tasks_per_update: Tasks issued for each update that was accepted.
    """

    case: str
    seeds: int
    reached: int
    target_s: Estimate | None
    target_updates: Estimate | None
    speedup: Estimate | None
    loss: Estimate | None
    accuracy: Estimate | None
    kept: Estimate | None
    tasks_per_update: float


def summarize(experiment: Experiment, runs: Sequence[Run]) -> list[CaseSummary]:
    """Return a summary of each case that has runs, in the order of the experiment."""
    figures = [run.figures for run in runs]
    baseline = {each.seed: each for each in figures if each.case == experiment.baseline}
    cases = [case.name for case in experiment.cases]
    by_case = {name: [each for each in figures if each.case == name] for name in cases}
    return [_summary(name, own, baseline) for name, own in by_case.items() if own]


def _summary(name: str, own: Sequence[Figures], baseline: dict[int, Figures]) -> CaseSummary:
    pairs = [(each, baseline[each.seed]) for each in own if each.seed in baseline]
    times = [each.target_s for each in own if each.target_s is not None]
    return CaseSummary(
        case=name,
        seeds=len(own),
        reached=len(times),
        target_s=estimate(times),
        target_updates=estimate([float(f.target_updates) for f in own if f.target_updates]),
        speedup=estimate_ratio(
            [b.target_s / a.target_s for a, b in pairs if a.target_s and b.target_s]
        ),
        loss=estimate([each.loss for each in own]),
        accuracy=estimate([each.accuracy for each in own if each.accuracy is not None]),
        kept=estimate([_drop(a) / _drop(b) for a, b in pairs if _drop(b) > 0]),
        tasks_per_update=sum(f.tasks for f in own) / max(1, sum(f.updates for f in own)),
    )


def _drop(figures: Figures) -> float:
    return figures.start_loss - figures.loss

"""Figures of an experiment's simulated runs: one record for each case and seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from common.files import read_jsonl
from simulation.experiments.experiment import Experiment
from simulation.experiments.statistics import Estimate, estimate, estimate_ratio
from simulation.grid.runner import CellResult
from simulation.records import Measurement, read_measurements

CLIENT_METRICS = "client_metrics.jsonl"


@dataclass(frozen=True)
class Figures:
    """Figures of one run.

    Attributes:
        start_loss: Held-out loss of version 0.
        loss, accuracy: Of the last version; accuracy only where there is one.
        target_s, target_updates: Virtual time and updates until the target; None if it was not
            reached.
        steady_s: Virtual seconds until the mean of three measurements is at `steady_loss`.
        seconds: Virtual time of the whole run.
        tasks: Tasks that were issued, those whose answer was not used included.
        clients: Clients of which an update was accepted.
    """

    case: str
    seed: int
    start_loss: float
    loss: float
    accuracy: float | None
    target_s: float | None
    target_updates: int | None
    steady_s: float | None
    seconds: float
    versions: int
    updates: int
    tasks: int
    clients: int
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


def read_run(result: CellResult, steady_loss: float | None = None) -> Run | None:
    """Return a finished cell's run; None if it failed."""
    summary = result.summary
    if summary is None:
        return None
    directory: Path = result.cell.config.run.path
    measured = read_measurements(directory)
    last = measured[-1]
    reached = next((m for m in measured if m.seconds == summary.target_s), None)
    figures = Figures(
        case=result.cell.case,
        seed=summary.seed,
        start_loss=measured[0].loss,
        loss=last.loss,
        accuracy=last.metrics.get("accuracy"),
        target_s=summary.target_s,
        target_updates=reached.updates if reached else None,
        steady_s=steady_seconds(measured, steady_loss),
        seconds=summary.seconds,
        versions=summary.versions,
        updates=summary.updates,
        tasks=summary.tasks,
        clients=len({line["client_id"] for line in read_jsonl(directory / CLIENT_METRICS)}),
        mb_up=summary.bytes_up / 1e6,
        wall_s=summary.wall_s,
    )
    return Run(figures, measured)


def steady_seconds(measured: Sequence[Measurement], loss: float | None) -> float | None:
    """Return when the mean of three measurements in a row was at a loss; None if it never was."""
    if loss is None:
        return None
    for last in range(2, len(measured)):
        if fmean(m.loss for m in measured[last - 2 : last + 1]) <= loss:
            return measured[last].seconds
    return None


@dataclass(frozen=True)
class CaseSummary:
    """Figures of one case over its seeds; None where there are none.

    Attributes:
        speedup, steady_speedup: Time of the baseline over the case's, paired by seed.
        kept: Drop of the loss over the baseline's drop, paired by seed.
        tasks_per_update: Tasks issued for each update that was accepted.
        clients: Clients of which an update was accepted.
    """

    case: str
    seeds: int
    reached: int
    target_s: Estimate | None
    target_updates: Estimate | None
    speedup: Estimate | None
    steady_s: Estimate | None
    steady_speedup: Estimate | None
    loss: Estimate | None
    accuracy: Estimate | None
    kept: Estimate | None
    tasks_per_update: float
    clients: Estimate | None


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
        steady_s=estimate([each.steady_s for each in own if each.steady_s is not None]),
        steady_speedup=estimate_ratio(
            [b.steady_s / a.steady_s for a, b in pairs if a.steady_s and b.steady_s]
        ),
        loss=estimate([each.loss for each in own]),
        accuracy=estimate([each.accuracy for each in own if each.accuracy is not None]),
        kept=estimate([_drop(a) / _drop(b) for a, b in pairs if _drop(b) > 0]),
        clients=estimate([float(each.clients) for each in own]),
        tasks_per_update=sum(f.tasks for f in own) / max(1, sum(f.updates for f in own)),
    )


def _drop(figures: Figures) -> float:
    return figures.start_loss - figures.loss

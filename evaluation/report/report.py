"""What a run achieved, and how it got there: a version's assessment, and the run's history.

The history is read from the journal's summaries; nothing is trained or measured for it. A report is
a value: `evaluation.report.tables` and `evaluation.report.plots` draw it, and
`evaluation.report.files` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config.config import PhaseConfig
from common.protocol.versions import VersionSummary
from coordinator.storage import retention
from coordinator.storage.run import Run
from evaluation import opening
from evaluation.assessment import Assessment, assess
from evaluation.comparison import Comparison
from evaluation.evaluator import FULL_LIMITS, EvaluationLimits
from evaluation.opening import Opened
from learning.training.device import Compute


@dataclass(frozen=True)
class Report:
    """The outcome of a run.

    Attributes:
        name: Of the run.
        base_name: Of the base model.
        adapter: Directory of the evaluated version.
        phases: Of the plan.
        assessment: How good that version is.
        versions: Every version's summary.
        sources: What became of each source's rows, by kind: `learning.data.sources.Usable`.
        comparison: With another run.
    """

    name: str
    base_name: str
    adapter: Path
    phases: tuple[PhaseConfig, ...]
    assessment: Assessment
    versions: tuple[VersionSummary, ...]
    sources: Mapping[str, Any]
    comparison: Comparison | None = None


def build(run: Run, compute: Compute) -> Report:
    """Evaluate the newest version of a run that is open, on every held-out row.

    Raises:
        DataError: The prepared rows are gone.
        ModelError: The base model cannot be loaded.
    """
    opened = opening.of(run)
    return build_report(opened, opened.summaries[-1].version, compute, FULL_LIMITS)


def build_report(run: Opened, version: int, compute: Compute, sizes: EvaluationLimits) -> Report:
    """Evaluate a version that is on the disk.

    Raises:
        DataError: The prepared rows are gone.
        ModelError: The base model cannot be loaded.
        RunError: A version that is needed is not there.
    """
    return Report(
        name=run.name,
        base_name=run.base.name,
        adapter=run.place(version),
        phases=run.phases,
        assessment=assess(run, version, compute, sizes),
        versions=run.summaries,
        sources=run.sources,
    )


@dataclass(frozen=True)
class PhaseHistory:
    """How one phase went. Losses are of its objective; points are (version, value).

    Attributes:
        number: Of the phase, from 1.
        phase: Its settings.
        begin: The version that it started from.
        versions: That it made.
        train: Mean training loss of the updates in a version.
        holdout: Loss of a version on the clients' own holdouts, before they trained on from it.
        accuracy: The same for accuracy, where there is one.
    """

    number: int
    phase: PhaseConfig
    begin: int
    versions: tuple[VersionSummary, ...]
    train: tuple[tuple[int, float], ...]
    holdout: tuple[tuple[int, float], ...]
    accuracy: tuple[tuple[int, float], ...]


def phase_histories(
    phases: Sequence[PhaseConfig], versions: Sequence[VersionSummary]
) -> tuple[PhaseHistory, ...]:
    """The history by phase; phases that have made no version are left out."""
    losses, accuracies = retention.federated_losses(versions), federated_accuracy(versions)
    found = []
    begin = 0
    for index, phase in enumerate(phases):
        end = begin + phase.versions
        made = tuple(v for v in versions if begin < v.version <= end)
        if made:
            found.append(
                PhaseHistory(
                    number=index + 1,
                    phase=phase,
                    begin=begin,
                    versions=made,
                    train=tuple((v.version, v.train_loss) for v in made if v.train_loss),
                    # A phase's end is where the next one begins: it is measured by that one.
                    holdout=tuple(sorted(p for p in losses.items() if begin <= p[0] < end)),
                    accuracy=tuple(sorted(p for p in accuracies.items() if begin <= p[0] < end)),
                )
            )
        begin = end
    return tuple(found)


def federated_accuracy(versions: Sequence[VersionSummary]) -> dict[int, float]:
    """Accuracy of versions on the clients' own holdouts, before they trained on from them.

    Weighted by sample count, as `coordinator.storage.retention.federated_losses` is.
    """
    total: dict[int, float] = {}
    count: dict[int, int] = {}
    for update in (update for version in versions for update in version.updates):
        if update.stats.accuracy_before is not None:
            base = update.base_version
            total[base] = (
                total.get(base, 0.0) + update.stats.num_samples * update.stats.accuracy_before
            )
            count[base] = count.get(base, 0) + update.stats.num_samples
    return {version: total[version] / count[version] for version in total if count[version]}

"""Report on a run: the assessment of one version, and the history of how the run got there.

The history comes from the journal, and so do the clients' evaluations and contributions: nothing is
evaluated again for them. `evaluation/report/build.py` adds the assessment.
`evaluation/report/figure_tables.py`, `history_tables.py` and `plots.py` present a report, and
`evaluation/report/files.py` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.config.config import PhaseConfig
from common.evaluation.contributions import ContributionRow, contribution_rows
from common.evaluation.rows import EvaluationRow, evaluation_rows
from common.privacy import PrivacySpending
from common.protocol.evaluations import EvaluatorFigures
from common.protocol.versions import VersionSummary
from common.run_directory.recorded_run import RecordedRun
from common.run_directory.records import ScoreRecord, WarmStart
from coordinator.storage import retention
from evaluation.assessed import Assessment, choose_versions, first_title, recorded_answers

if TYPE_CHECKING:
    from evaluation.comparison import Comparison
    from evaluation.quantization_gap import QuantizationGap

ANSWERED = 3  # rows with the answers that versions gave during the run


@dataclass(frozen=True)
class Report:
    """The outcome of a run."""

    name: str
    base_name: str
    adapter: Path  # directory of the assessed version
    phases: tuple[PhaseConfig, ...]
    assessment: Assessment
    versions: tuple[VersionSummary, ...]
    sources: Mapping[str, Any]  # `learning.data.sources.SourceSummary` by kind, as JSON values
    comparison: Comparison | None = None
    start: WarmStart | None = None  # the adapter that is version 0; None: version 0 is the base
    autocast: bool = False  # whether the model was computed in bfloat16
    gap: QuantizationGap | None = None  # of a run on a quantized base
    sites_only: bool = False  # whether all rows are those of invited sites
    evaluations: tuple[EvaluationRow, ...] = ()  # by clients, on rows of their own
    contributions: tuple[ContributionRow, ...] = ()  # of clients, to the versions
    scores: tuple[ScoreRecord, ...] = ()  # of updates, that clients cannot inflate
    evaluators: tuple[EvaluatorFigures, ...] = ()  # figures of plug-ins
    privacy: PrivacySpending | None = None  # by all versions; None without differential privacy

    @property
    def best(self) -> EvaluationRow | None:
        """The evaluation of the best version of the newest phase that clients evaluated."""
        return next((each for each in reversed(self.evaluations) if each.best), None)


def report_of(run: RecordedRun, assessment: Assessment) -> Report:
    """Return the report on an assessment, with everything that the run directory records."""
    objectives = [phase.objective for phase in run.config.phase]
    return Report(
        name=run.config.run.name,
        base_name=run.base.name,
        adapter=run.version_directory(assessment.version),
        phases=run.config.phase,
        assessment=assessment,
        versions=run.versions,
        sources=run.sources,
        start=run.start,
        sites_only=run.config.sites_only,
        evaluations=evaluation_rows(
            run.evaluations, run.rounds, [phase.kind for phase in run.config.phase]
        ),
        contributions=contribution_rows(
            run.versions, objectives, run.config.aggregation.contribution_source
        ),
        scores=run.scores,
        evaluators=run.evaluators,
        privacy=run.privacy(run.versions[-1].version),
    )


def recorded_report(run: RecordedRun, version: int) -> Report:
    """Return the report on a version from the run directory alone: nothing is evaluated."""
    subjects = choose_versions(run.config.phase, version, first_title(run))
    answers = recorded_answers(run, subjects, ANSWERED)
    return report_of(run, Assessment(version, subjects, (), answers, run.labels))


@dataclass(frozen=True)
class PhaseHistory:
    """The course of one phase. Losses are of its objective; points are (version, value).

    Attributes:
        holdout: Loss of a version on the clients' own holdouts, before they trained from it.
        accuracy: Accuracy on these holdouts, if the objective has one.
    """

    number: int  # from 1
    phase: PhaseConfig
    begin: int  # the version from which the phase started
    versions: tuple[VersionSummary, ...]
    train: tuple[tuple[int, float], ...]  # mean training loss of the updates in a version
    holdout: tuple[tuple[int, float], ...]
    accuracy: tuple[tuple[int, float], ...]


def split_by_phase(
    phases: Sequence[PhaseConfig], versions: Sequence[VersionSummary]
) -> tuple[PhaseHistory, ...]:
    """Return the history by phase; phases that have made no version are left out."""
    losses, accuracies = retention.federated_losses(versions), federated_accuracy(versions)
    histories = []
    begin = 0
    for index, phase in enumerate(phases):
        end = begin + phase.versions
        made = tuple(v for v in versions if begin < v.version <= end)
        if made:
            histories.append(
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
    return tuple(histories)


def federated_accuracy(versions: Sequence[VersionSummary]) -> dict[int, float]:
    """Return the accuracy of versions on the clients' own holdouts, before training from them.

    The mean is weighted by sample count, as in `coordinator.storage.retention.federated_losses`.
    """
    total: dict[int, float] = {}
    count: dict[int, int] = {}
    for update in (update for version in versions for update in version.updates):
        if update.stats.accuracy_before is not None:
            base, samples = update.base_version, update.stats.num_samples
            total[base] = total.get(base, 0.0) + samples * update.stats.accuracy_before
            count[base] = count.get(base, 0) + samples
    return {version: total[version] / count[version] for version in total if count[version]}

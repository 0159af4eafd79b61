"""The stream of figures that trackers get, read from a run directory.

Everything in it is recorded already, so that a tracker may be late, and one that starts again
continues where it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from statistics import fmean

from common.evaluation.contributions import contribution_rows
from common.evaluation.rows import EvaluationRow, evaluation_rows
from common.protocol.versions import UpdateSummary, VersionSummary
from common.run_directory.recorded_run import RecordedRun
from evaluation.trackers.protocol import Figures

Values = dict[str, float]


def new_figures(run: RecordedRun, logged: Set[str]) -> Iterator[Figures]:
    """Yield the figures of a run whose keys are not in `logged`.

    Those of versions come first, then evaluations by clients, then plug-in evaluators.
    """
    for index, summary in enumerate(run.versions):
        if version_key(summary.version) not in logged:
            yield _of_version(run, index, summary)
    kinds = [phase.kind for phase in run.config.phase]
    for row in evaluation_rows(run.evaluations, run.rounds, kinds):
        if not row.open and row.clients:
            key = f"evaluation {row.phase} {row.version}"
            if key not in logged:
                yield _figures(key, row.version, row.at, _evaluation_values(row))
    for each in run.evaluators:
        values = {f"evaluator/{each.evaluator}/{key}": v for key, v in each.figures.items()}
        key = f"evaluator {each.evaluator} {each.version}"
        if key not in logged:
            yield _figures(key, each.version, each.at, values)


def version_key(version: int) -> str:
    return f"version {version}"


def _figures(key: str, version: int, at: float, values: Mapping[str, float | None]) -> Figures:
    finite = {k: float(v) for k, v in values.items() if v is not None and math.isfinite(v)}
    return Figures(key, version, at, finite)


def _of_version(run: RecordedRun, index: int, summary: VersionSummary) -> Figures:
    values: dict[str, float | None] = {
        "train/loss": summary.train_loss,
        "holdout/loss_before": summary.holdout_before,
        "holdout/loss_after": summary.holdout_after,
        "holdout/accuracy_before": summary.accuracy_before,
        "holdout/accuracy_after": summary.accuracy_after,
    }
    if summary.updates:
        values |= _update_values(summary.updates)
        values["version/seconds"] = summary.at - run.versions[index - 1].at
        values |= _contribution_values(run, run.versions[: index + 1], summary)
    return _figures(version_key(summary.version), summary.version, summary.at, values)


def _update_values(updates: Sequence[UpdateSummary]) -> Values:
    values = {
        "version/updates": float(len(updates)),
        "version/bytes": float(sum(update.nbytes for update in updates)),
        "staleness/mean": fmean(update.staleness for update in updates),
        "staleness/max": float(max(update.staleness for update in updates)),
    }
    for update in updates:
        client = f"client/{update.client_id}"
        values[f"{client}/train_loss"] = update.stats.avg_loss
        values[f"{client}/weight"] = update.weight
        values[f"{client}/staleness"] = float(update.staleness)
    return values


def _contribution_values(
    run: RecordedRun, versions: Sequence[VersionSummary], summary: VersionSummary
) -> Values:
    """Return the running contribution of the clients whose updates are in a version."""
    objectives = [phase.objective for phase in run.config.phase]
    rows = contribution_rows(versions, objectives, run.config.aggregation.contribution_source)
    named = {update.client_id for update in summary.updates}
    return {
        f"client/{row.client_id}/contribution": row.contribution
        for row in rows
        if row.client_id in named
    }


def _evaluation_values(row: EvaluationRow) -> dict[str, float | None]:
    """Return pooled figures, the worst client's main metric, its spread, and each client's."""
    start, main = f"evaluation/phase{row.phase + 1}", row.metric.key
    values: dict[str, float | None] = {f"{start}/pooled/{k}": v for k, v in row.values.items()}
    values[f"{start}/worst/{main}"] = row.worst_value
    values[f"{start}/range/{main}"] = row.range
    for client in row.clients:
        values[f"{start}/client/{client.client_id}/{main}"] = client.values.get(main)
    return values

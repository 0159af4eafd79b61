"""Files of a report: Markdown, JSON, one HTML file, and pictures.

`report.*`, written at the end of a run, includes its history; `evaluation.*` is about one version.
Writing raises `RunError` if the folder cannot be written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.document.blocks import Block, BulletList, Heading, Picture
from common.document.files import replace_non_finite, write_files
from common.document.html_page import to_html
from common.document.markdown import to_markdown
from common.evaluation.metric_info import METRICS
from coordinator.storage.retention import federated_losses
from evaluation.assessed import KindAssessment
from evaluation.report import (
    evaluator_tables,
    federated_tables,
    figure_tables,
    history_tables,
    plots,
    privacy_section,
)
from evaluation.report.report import Report, federated_accuracy
from learning.evaluation.metrics import EvalMetrics, client_spread

if TYPE_CHECKING:
    from evaluation.comparison import Comparison


def write_report(report: Report, folder: Path) -> Path:
    """Write the report on a whole run and return the path of the Markdown file."""
    rest = [
        *history_tables.build_history(report, ""),
        *history_tables.build_times(report),
        *history_tables.build_versions(report),
    ]
    return _write(report, folder, "report", "", rest, build_fields(report, history=True))


def write_evaluation(report: Report, folder: Path) -> Path:
    """Write the evaluation of one version and return the path of the Markdown file."""
    prefix = "evaluation_"
    rest = history_tables.build_history(report, prefix)
    fields = build_fields(report, history=False)
    return _write(report, folder, "evaluation", prefix, rest, fields)


def build_blocks(report: Report, prefix: str) -> list[Block]:
    """Return the blocks that both forms have; `prefix` begins the names of pictures."""
    return [
        *figure_tables.build_title(report),
        *(figure_tables.build_comparison(report.comparison) if report.comparison else []),
        *figure_tables.build_metrics(report.assessment, prefix),
        *federated_tables.build_evaluations(report, prefix),
        *evaluator_tables.build_evaluators(report.evaluators),
        *figure_tables.build_answers(report.assessment),
        *federated_tables.build_contributions(report),
        *privacy_section.build_privacy(report),
        *history_tables.build_data(report),
    ]


def build_fields(report: Report, *, history: bool) -> dict[str, Any]:
    """Return the report as plain JSON values; a number that is not finite is null.

    `base` and `federated` are the held-out metrics of the first kind of rows that the run learns;
    null if the coordinator has no rows. `evaluations` are those of the clients, on their own rows.
    """
    assessment = report.assessment
    first = next(iter(assessment.kinds), None)
    values: dict[str, Any] = {
        "run": report.name,
        "base_model": report.base_name,
        "version": assessment.version,
        "adapter": str(report.adapter),
        "subjects": [asdict(subject) for subject in assessment.subjects],
        "autocast": report.autocast,
        "heldout_rows": first.heldout[-1].rows if first else 0,
        "unigram_nats_per_token": first.unigram if first else None,
        "base": _metric_fields(first.heldout[0], first) if first else None,
        "federated": _metric_fields(first.heldout[-1], first) if first else None,
        "kinds": {each.kind: _kind_fields(each) for each in assessment.kinds},
        "labels": list(assessment.labels),
        "samples": [asdict(sample) for sample in assessment.samples],
        "data": dict(report.sources),
        "sites_only": report.sites_only,
        "evaluations": [row.fields() for row in report.evaluations],
        "best_version": report.best.version if report.best else None,
        "contributions": [row.fields() for row in report.contributions],
        "evaluators": [each.fields() for each in report.evaluators],
        "scores": [score.fields() for score in report.scores],
        "privacy": privacy_section.privacy_fields(report),
        "federated_loss": federated_losses(report.versions),
        "federated_accuracy": federated_accuracy(report.versions),
    }
    if history:
        values["versions"] = [version.fields() for version in report.versions]
    if report.gap:
        values["quantization"] = {
            "name": report.gap.quantization,
            "metric": report.gap.metric.key,
            "quantized": report.gap.quantized,
            "unquantized": report.gap.unquantized,
        }
    if report.comparison:
        values["comparison"] = _comparison_fields(report.comparison)
    plain: dict[str, Any] = replace_non_finite(values)
    return plain


def _write(
    report: Report,
    folder: Path,
    name: str,
    prefix: str,
    rest: list[Block],
    values: Mapping[str, Any],
) -> Path:
    blocks = [*build_blocks(report, prefix), *rest]
    pictures = plots.draw_pictures(report, prefix)
    names = [block.name for block in blocks if isinstance(block, Picture)]
    files = (f"{name}.html: all of this in one file", f"{name}.json", *names)
    blocks += [Heading("Files"), BulletList(str(folder), (f"version: {report.adapter}", *files))]
    title = f"Run {report.name}, version {report.assessment.version}"
    contents = {
        **pictures,
        f"{name}.json": json.dumps(values, indent=1).encode(),
        f"{name}.html": to_html(blocks, title, pictures).encode(),
        f"{name}.md": to_markdown(blocks).encode(),
    }
    write_files(folder, contents)
    return folder / f"{name}.md"


def _kind_fields(found: KindAssessment) -> dict[str, Any]:
    last = {name: own[-1] for name, own in found.clients.items()}
    spreads = {metric.key: client_spread(metric, last) for metric in METRICS[found.kind]}
    return {
        "heldout": [_metric_fields(one, found) for one in found.heldout],
        "all_clients": [_metric_fields(one, found) for one in found.pooled],
        "clients": {
            name: [_metric_fields(one, found) for one in own] for name, own in found.clients.items()
        },
        "spread": {key: asdict(one) if one else None for key, one in spreads.items()},
        "unigram_nats_per_token": found.unigram,
        "available_rows": found.available,
        "reference": found.reference,
        "beta": found.beta,
    }


def _metric_fields(metrics: EvalMetrics, of: KindAssessment) -> dict[str, Any]:
    intervals = {metric.key: metrics.interval(metric) for metric in METRICS[of.kind]}
    values: dict[str, Any] = {"rows": metrics.rows, **metrics.values}
    values["intervals"] = {key: list(pair) for key, pair in intervals.items() if pair}
    return values | ({"confusion": metrics.confusion} if metrics.confusion else {})


def _comparison_fields(comparison: Comparison) -> dict[str, Any]:
    return {
        "sides": [asdict(side) for side in comparison.sides],
        "kinds": {
            each.kind: {
                "figures": [{"rows": one.rows, **one.values} for one in each.figures],
                "left_out": each.left_out,
            }
            for each in comparison.kinds
        },
    }

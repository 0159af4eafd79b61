"""A report on the disk: Markdown, JSON, one HTML file, and the pictures.

`report.*` at the end of a run says how it went, too; `evaluation.*` says how good a version is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.document.blocks import Block, BulletList, Heading, Picture
from common.document.files import replace_non_finite, write_files
from common.document.html_page import to_html
from common.document.markdown import to_markdown
from coordinator.storage.retention import federated_losses
from evaluation.assessment import KindAssessment
from evaluation.comparison import Comparison
from evaluation.report import plots, tables
from evaluation.report.report import Report, federated_accuracy
from learning.evaluation.metrics import METRICS, EvalMetrics, client_spread


def write(report: Report, folder: Path) -> Path:
    """Write the report of a whole run; returns the path of the Markdown file.

    Raises:
        RunError: The folder cannot be written.
    """
    rest = [*tables.history(report, ""), *tables.versions(report)]
    return _write(report, folder, "report", "", rest, fields(report, history=True))


def write_evaluation(report: Report, folder: Path) -> Path:
    """Write the evaluation of one version; returns the path of the Markdown file.

    Raises:
        RunError: The folder cannot be written.
    """
    rest = tables.history(report, "evaluation_")
    return _write(report, folder, "evaluation", "evaluation_", rest, fields(report, history=False))


def blocks(report: Report, prefix: str) -> list[Block]:
    """What both forms say: the comparison, figures, answers, data."""
    compared = tables.comparison(report.comparison) if report.comparison else []
    return [
        *tables.opening(report),
        *compared,
        *tables.figures(report.assessment, prefix),
        *tables.answers(report.assessment),
        *tables.data(report),
    ]


def fields(report: Report, *, history: bool) -> dict[str, Any]:
    """The report as plain JSON values; a number that is not finite is null.

    `base` and `federated` are the held-out figures of the first kind of rows that the run learns.
    """
    found = report.assessment
    first = found.kinds[0]
    values: dict[str, Any] = {
        "run": report.name,
        "base_model": report.base_name,
        "version": found.version,
        "adapter": str(report.adapter),
        "subjects": [asdict(subject) for subject in found.subjects],
        "heldout_rows": first.heldout[-1].rows,
        "unigram_nats_per_token": first.unigram,
        "base": _figures(first.heldout[0], first),
        "federated": _figures(first.heldout[-1], first),
        "kinds": {each.kind: _assessed(each) for each in found.kinds},
        "labels": list(found.labels),
        "samples": [asdict(sample) for sample in found.samples],
        "data": dict(report.sources),
        "federated_loss": federated_losses(report.versions),
        "federated_accuracy": federated_accuracy(report.versions),
    }
    if history:
        values["versions"] = [version.fields() for version in report.versions]
    if report.comparison:
        values["comparison"] = _comparison(report.comparison)
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
    text = [*blocks(report, prefix), *rest]
    pictures = plots.pictures(report, prefix)
    names = [block.name for block in text if isinstance(block, Picture)]
    files = (f"{name}.html: all of this, in one file", f"{name}.json", *names)
    text += [Heading("Files"), BulletList(str(folder), (f"version: {report.adapter}", *files))]
    title = f"Run {report.name}, version {report.assessment.version}"
    contents = {
        **pictures,
        f"{name}.json": json.dumps(values, indent=1).encode(),
        f"{name}.html": to_html(text, title, pictures).encode(),
        f"{name}.md": to_markdown(text).encode(),
    }
    write_files(folder, contents)
    return folder / f"{name}.md"


def _assessed(found: KindAssessment) -> dict[str, Any]:
    last = {name: own[-1] for name, own in found.clients.items()}
    spreads = {metric.key: client_spread(metric, last) for metric in METRICS[found.kind]}
    return {
        "heldout": [_figures(one, found) for one in found.heldout],
        "all_clients": [_figures(one, found) for one in found.pooled],
        "clients": {
            name: [_figures(one, found) for one in own] for name, own in found.clients.items()
        },
        "spread": {key: asdict(one) if one else None for key, one in spreads.items()},
        "unigram_nats_per_token": found.unigram,
        "reference": found.reference,
        "beta": found.beta,
    }


def _figures(found: EvalMetrics, of: KindAssessment) -> dict[str, Any]:
    intervals = {metric.key: found.interval(metric) for metric in METRICS[of.kind]}
    values: dict[str, Any] = {"rows": found.rows, **found.values}
    values["intervals"] = {key: list(pair) for key, pair in intervals.items() if pair}
    return values | ({"confusion": found.confusion} if found.confusion else {})


def _comparison(found: Comparison) -> dict[str, Any]:
    return {
        "sides": [asdict(side) for side in found.sides],
        "kinds": {
            each.kind: {
                "figures": [{"rows": one.rows, **one.values} for one in each.figures],
                "left_out": each.left_out,
            }
            for each in found.kinds
        },
    }

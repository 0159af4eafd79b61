"""Blocks of a report about what clients evaluated on rows of their own, and what they contributed.

All figures come from the journal. `evaluation/report/figure_tables.py` has the blocks about rows
that this machine evaluates; `common/document/blocks.py` renders both.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.byte_sizes import format_bytes
from common.config.config import PhaseConfig
from common.document.blocks import Block, Heading, Paragraph, Picture, Table
from common.evaluation.contributions import contribution_table
from common.evaluation.metric_info import METRICS, MetricInfo
from common.evaluation.rows import EvaluationRow
from evaluation.report.figure_tables import ABSENT, MAX_CLIENTS
from evaluation.report.report import Report

MAX_COLUMNS = 8  # versions in the table of clients


def build_evaluations(report: Report, prefix: str) -> list[Block]:
    """Return the clients' evaluations by phase; `prefix` begins the name of the picture."""
    heading = Heading("Evaluation by the clients")
    if not any(row.clients for row in report.evaluations):
        nothing = Paragraph("No client has evaluated a version yet.")
        return [heading, nothing] if report.sites_only else []
    text = (
        "Each client evaluated versions on validation rows of its own, which no task trains on, and"
        " sent sums: the pooled figures are those of one evaluation on the rows of all of them."
    )
    blocks: list[Block] = [heading, Paragraph(text), *_best(report)]
    for index, phase in enumerate(report.phases):
        if own := [row for row in report.evaluations if row.phase == index]:
            blocks += _phase(index, phase, own)
    if has_picture(report):
        name = f"{prefix}evaluations.png"
        blocks.append(Picture(name, "Evaluation by the clients, by version"))
    return blocks


def has_picture(report: Report) -> bool:
    """Return whether there are two evaluated versions to connect."""
    answered = [row.phase for row in report.evaluations if row.clients]
    return len(answered) > len(set(answered))


def build_contributions(report: Report) -> list[Block]:
    """Return who contributed how much to the versions, and what scores of updates have cost."""
    if not report.contributions:
        return []
    source = report.contributions[0].source
    blocks: list[Block] = [
        Heading("Contributions"),
        Paragraph(
            "Contribution is a client's weight relative to the average of the updates beside it, as"
            " a running mean: 1 is average. Share is the client's part of all that was added to the"
            f" adapter. Weights were computed from {_source(source)}."
        ),
        Table(*_as_rows(contribution_table(report.contributions))),
    ]
    if report.scores:
        seconds = sum(score.seconds for score in report.scores)
        nbytes = format_bytes(sum(score.nbytes for score in report.scores))
        text = f"{len(report.scores):,} scores took {seconds:,.1f} s of computing and {nbytes}."
        blocks.append(Paragraph(text))
    return blocks


def _as_rows(
    table: tuple[tuple[str, ...], list[tuple[str, ...]]],
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    header, rows = table
    return header, tuple(rows)


def _source(name: str) -> str:
    return {
        "train": "the clients' own training losses",
        "holdout": "the clients' own holdout losses",
        "server": "the drop in loss on held-out rows of the coordinator",
        "federated": "the drop in loss on other clients' validation rows",
        "cosine": "the agreement of an update with the others",
    }.get(name, name)


def _best(report: Report) -> list[Block]:
    best = report.best
    if best is None or best.value is None:
        return []
    metric, last = best.metric, len(report.phases) - 1
    phase = "the last phase" if best.phase == last else f"phase {best.phase + 1}"
    text = (
        f"Version {best.version} is the best of {phase}, by the {metric.title} over the clients"
        f" that answered for all of its evaluated versions: {_format(metric, best.value)} over all"
        f" that answered for it."
    )
    return [Paragraph(text)]


def _phase(index: int, phase: PhaseConfig, rows: Sequence[EvaluationRow]) -> list[Block]:
    blocks: list[Block] = [
        Heading(f"Phase {index + 1}, {phase.objective}: all clients", 3),
        _pooled(rows),
    ]
    blocks += [
        Paragraph(f"Version {row.version} is still being evaluated.") for row in rows if row.open
    ]
    absent = [
        f"version {row.version}: {', '.join(row.missing)}"
        for row in rows
        if row.missing and not row.open
    ]
    if absent:
        blocks.append(Paragraph(f"Without an answer for {'; '.join(absent)}."))
    return [*blocks, *_clients(rows)]


def _pooled(rows: Sequence[EvaluationRow]) -> Table:
    metrics = METRICS[rows[0].kind]
    main = rows[0].metric
    header = ("version", *(metric.title for metric in metrics), "rows", "clients")
    spread = (f"worst client, {main.title}", "max − min", "standard deviation")
    lines = []
    for row in rows:
        name = f"{row.version} (best)" if row.best else str(row.version)
        values = (_format(metric, row.values.get(metric.key)) for metric in metrics)
        asked = len(row.clients) + len(row.missing)
        worst = ABSENT
        if row.worst is not None:
            worst = f"{_format(main, row.worst_value)} ({row.worst})"
        spreads = (_format(main, row.range), _format(main, row.deviation))
        counts = (f"{row.rows:,}", f"{len(row.clients)} of {asked}")
        lines.append((name, *values, *counts, worst, *spreads))
    return Table((*header, *spread), tuple(lines))


def _clients(rows: Sequence[EvaluationRow]) -> list[Block]:
    """Return the main metric of each client, by version."""
    answered = [row for row in rows if row.clients]
    if not answered:
        return []
    metric, shown = answered[0].metric, _columns(answered)
    counts = {own.client_id: own.rows for row in answered for own in row.clients}
    names = sorted(counts)
    blocks: list[Block] = [Heading("Each client", 3)]
    if len(names) > MAX_CLIENTS:
        last = answered[-1]
        sign = 1 if metric.higher else -1
        known = [name for name in names if last.client_value(name) is not None]
        names = sorted(known, key=lambda name: sign * (last.client_value(name) or 0.0))
        names = names[:MAX_CLIENTS]
        text = f"The {len(names)} worst of {len(counts)} clients with version {last.version}."
        blocks.append(Paragraph(text))
    header = (f"{metric.title}", "rows", *(f"version {row.version}" for row in shown))
    lines = tuple(
        (name, f"{counts[name]:,}", *(_format(metric, row.client_value(name)) for row in shown))
        for name in names
    )
    return [*blocks, Table(header, lines)]


def _columns(rows: Sequence[EvaluationRow]) -> list[EvaluationRow]:
    """Return the first, the best, the last and some rows between, spread evenly."""
    if len(rows) <= MAX_COLUMNS:
        return list(rows)
    last = len(rows) - 1
    places = {round(i * last / (MAX_COLUMNS - 2)) for i in range(MAX_COLUMNS - 1)}
    places |= {i for i, row in enumerate(rows) if row.best}
    return [rows[i] for i in sorted(places)]


def _format(metric: MetricInfo, value: float | None) -> str:
    return ABSENT if value is None else f"{value:.{metric.decimals}f}"

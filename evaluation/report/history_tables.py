"""Blocks of a report about the history of a run: data, losses, time of tasks, versions, updates.

`evaluation/report/figure_tables.py` has the blocks about metrics; `common/document/blocks.py`
renders both.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from common.document.blocks import Block, BulletList, Heading, Paragraph, Picture, Table
from common.protocol.fields import RowKind
from common.protocol.updates import TaskSeconds
from common.protocol.versions import UpdateSummary, VersionSummary
from evaluation.report.figure_tables import ABSENT
from evaluation.report.report import PhaseHistory, Report, split_by_phase

UNITS: dict[RowKind, str] = {
    "sft": "nats per response token",
    "va": "nats per preference pair",
    "kto": "KTO loss per answer",
    "cls": "nats per text",
}


def build_data(report: Report) -> list[Block]:
    """Return how many rows of each source were used, and what was left out of which."""
    if not report.sources:
        return []
    rows, reasons, omitted = [], [], []
    for kind, source in report.sources.items():
        skipped = sum(source["skipped"].values())
        counts = (source["read"], source["used"], skipped, source["truncated"])
        rows.append((kind, source["source"], *(f"{count:,}" for count in counts)))
        reasons += [f"{kind}: {n:,} × {reason}" for reason, n in source["skipped"].items()]
        parts = source.get("omitted", {})  # runs of earlier releases have none
        omitted += [f"{kind}: {n:,} × {part}" for part, n in parts.items()]
        if lost := source.get("lost_answers"):
            omitted.append(f"{kind}: {lost:,} × answer beyond model.max_length")
    header = ("kind", "source", "rows read", "usable", "skipped", "truncated")
    blocks: list[Block] = [Heading("Data"), Table(header, tuple(rows))]
    lists = {"Skipped": reasons, "Used in part": omitted}
    return blocks + [BulletList(name, tuple(lines)) for name, lines in lists.items() if lines]


def build_history(report: Report, prefix: str) -> list[Block]:
    if len(report.versions) < 2:
        return []
    return [Heading("History"), Picture(f"{prefix}loss.png", "Loss and accuracy by version")]


def build_versions(report: Report) -> list[Block]:
    """Return every version and every update, by phase: each phase has a loss of its own."""
    blocks: list[Block] = [Heading("Versions")]
    histories = split_by_phase(report.phases, report.versions)
    for history in histories:
        blocks += [_phase(history), _versions(history.versions)]
    blocks.append(Heading("Updates"))
    for history in histories:
        made = [update for version in history.versions for update in version.updates]
        blocks += [_phase(history), _updates(made)] if made else []
    return blocks


def build_times(report: Report) -> list[Block]:
    """Return where the time of tasks went, by phase; updates of earlier releases do not say it."""
    names = ("training", *TaskSeconds.model_fields)
    rows = []
    for history in split_by_phase(report.phases, report.versions):
        made = (update.stats.parts() for version in history.versions for update in version.updates)
        if parts := [each for each in made if each]:
            total = sum(sum(each.values()) for each in parts)
            other = total - sum(each["training"] for each in parts)
            medians = (f"{median(each[name] for each in parts):.1f}" for name in names)
            share = f"{100 * other / total:.0f} %" if total else ABSENT
            rows.append((f"{history.number}, {history.phase.objective}", *medians, share))
    if not rows:
        return []
    text = "Median seconds of each part of a task, and the share of all that was not training."
    table = Table(("phase", *names, "not training"), tuple(rows))
    return [Heading("Time of a task"), Paragraph(text), table]


def _phase(history: PhaseHistory) -> Paragraph:
    phase = history.phase
    return Paragraph(
        f"Phase {history.number}, {phase.objective}: losses in {UNITS[phase.kind]},"
        f" from version {history.begin}."
    )


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.3f}"


def _versions(made: Sequence[VersionSummary]) -> Table:
    header = ["version", "updates", "train loss", "clients' holdout before", "after"]
    with_accuracy = any(version.accuracy_before is not None for version in made)
    header += ["accuracy before", "after"] if with_accuracy else []
    rows = []
    for v in made:
        row = [str(v.version), str(len(v.updates)), _number(v.train_loss)]
        row += [_number(v.holdout_before), _number(v.holdout_after)]
        row += [_number(v.accuracy_before), _number(v.accuracy_after)] if with_accuracy else []
        rows.append((*row, f"{sum(u.nbytes for u in v.updates):,}"))
    return Table((*header, "bytes up"), tuple(rows))


def _updates(updates: Sequence[UpdateSummary]) -> Table:
    names = ("task", "client", "rows", "staleness", "FCCL weight", "× staleness", "× balance")
    with_accuracy = any(update.stats.accuracy_before is not None for update in updates)
    extra = ("accuracy before", "after") if with_accuracy else ()
    rows = []
    for u in updates:
        row = [u.task_id, u.client_id, str(u.stats.num_samples), str(u.staleness)]
        row.append(f"{u.weight:.3f}")
        row += [f"{u.staleness_factor:.3f}", f"{u.participation_factor:.2f}", f"{u.clip:.2f}"]
        row += [f"{u.coefficient:.3f}", f"{u.stats.avg_loss:.3f}"]
        if with_accuracy:
            row += [_number(u.stats.accuracy_before), _number(u.stats.accuracy_after)]
        rows.append(tuple(row))
    return Table((*names, "× clip", "step", "train loss", *extra), tuple(rows))

"""What a report says, as blocks: figures, clients, history, answers. Pure.

After `evaluation.report.report`; `common.document.blocks` renders the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.document.blocks import Block, BulletList, Heading, Paragraph, Picture, Table
from common.protocol.records import RowKind, UpdateSummary, VersionSummary
from evaluation.assessment import Assessment, EvaluatedVersion, KindAssessment
from evaluation.comparison import Comparison, KindComparison
from evaluation.report.report import PhaseHistory, Report, phase_histories
from learning.evaluation.figures import BY_CLIENT, MAIN, METRICS, MetricInfo, Metrics, spread

TITLES: dict[RowKind, str] = {
    "sft": "Instructions (sft)",
    "va": "Preferences (va)",
    "cls": "Classification (cls)",
}
UNITS: dict[RowKind, str] = {
    "sft": "nats per response token",
    "va": "nats per preference pair",
    "cls": "nats per text",
}
_CLIENTS = 30  # of which a table shows the figures
_CLASSES = 20  # of which a table shows who is taken for whom
NOTHING = "–"


def opening(report: Report) -> list[Block]:
    """What was evaluated."""
    found = report.assessment
    subjects = ", ".join(subject.title for subject in found.subjects)
    return [
        Heading(f"Run {report.name}: version {found.version} of {report.base_name}", 1),
        Paragraph(
            f"On rows that no task has trained on or seen: {subjects}. Shares stand with their 95 %"
            " intervals (Wilson): a difference within them may be noise."
        ),
    ]


def figures(assessment: Assessment, prefix: str) -> list[Block]:
    """All figures by kind: held-out rows, clients, confusion.

    Args:
        assessment: Of a version.
        prefix: Of the pictures' names.
    """
    blocks: list[Block] = []
    for found in assessment.kinds:
        blocks += [Heading(TITLES[found.kind]), *_heldout(found, assessment)]
        if any(one.rows for one in found.pooled):
            picture = Picture(f"{prefix}clients_{found.kind}.png", "Each client before and after")
            blocks += [*_clients(found, assessment.subjects), picture]
        else:
            blocks.append(Paragraph("No client has validation rows of this kind."))
    return blocks


def answers(assessment: Assessment) -> list[Block]:
    """Held-out rows, and what each subject says of them."""
    if not assessment.samples:
        return []
    titles = [subject.title for subject in assessment.subjects]
    return [
        Heading("Answers to held-out rows"),
        *(
            BulletList(
                sample.asked,
                (
                    f"expected: {sample.expected}",
                    *(
                        f"{title}: {answer or '(nothing)'}"
                        for title, answer in zip(titles, sample.answers, strict=True)
                    ),
                ),
            )
            for sample in assessment.samples
        ),
    ]


def data(report: Report) -> list[Block]:
    """What became of the rows of each source."""
    if not report.sources:
        return []
    rows, reasons = [], []
    for kind, found in report.sources.items():
        skipped = sum(found["skipped"].values())
        counts = (found["read"], found["used"], skipped, found["truncated"])
        rows.append((kind, found["source"], *(f"{count:,}" for count in counts)))
        reasons += [f"{kind}: {n:,} × {reason}" for reason, n in found["skipped"].items()]
    header = ("kind", "source", "rows read", "usable", "skipped", "used without their end")
    blocks: list[Block] = [Heading("Data"), Table(header, tuple(rows))]
    return [*blocks, BulletList("Skipped", tuple(reasons))] if reasons else blocks


def history(report: Report, prefix: str) -> list[Block]:
    """The picture of loss and accuracy by version."""
    if len(report.versions) < 2:
        return []
    picture = Picture(f"{prefix}loss.png", "Loss and accuracy by version")
    return [Heading("The way there"), picture]


def versions(report: Report) -> list[Block]:
    """Every version and every update, phase by phase: each has a loss of its own."""
    blocks: list[Block] = [Heading("Versions")]
    parts = phase_histories(report.phases, report.versions)
    for part in parts:
        blocks += [_phase(part), _versions(part.versions)]
    blocks.append(Heading("Updates"))
    for part in parts:
        made = [update for version in part.versions for update in version.updates]
        blocks += [_phase(part), _updates(made)] if made else []
    return blocks


def comparison(found: Comparison) -> list[Block]:
    """Two runs side by side."""
    one, two = found.sides
    text = f"Both on the held-out rows of {one.name}, each read by its own tokenizer."
    if not found.same_base:
        text += (
            f" The base models differ ({one.base_name}, {two.base_name}): of texts, only bits per"
            " byte can be compared."
        )
    if any(each.kind == "va" for each in found.kinds):
        text += " Rewards compare each run with its own reference, by its own β."
    blocks: list[Block] = [Heading(f"{one.title} and {two.title}"), Paragraph(text)]
    for each in found.kinds:
        blocks.append(Heading(TITLES[each.kind], 3))
        if each.left_out:
            blocks.append(Paragraph(f"{each.left_out} rows fit into one model only: left out."))
        blocks.append(_compared(each, (one.title, two.title)))
    return blocks


def cell(metric: MetricInfo, found: Metrics) -> str:
    """A figure with its interval."""
    if not found.rows:
        return NOTHING
    text = f"{found.values[metric.key]:.{metric.decimals}f}"
    interval = found.interval(metric)
    return text if interval is None else f"{text} ({interval[0]:.2f} to {interval[1]:.2f})"


def _heldout(found: KindAssessment, assessment: Assessment) -> list[Block]:
    rows = found.heldout[-1].rows
    if not rows:
        return [Paragraph("There are no held-out rows of this kind.")]
    titles = tuple(subject.title for subject in assessment.subjects)
    table = Table(
        (f"{rows} held-out rows", *titles),
        tuple(
            (metric.title, *(cell(metric, one) for one in found.heldout))
            for metric in METRICS[found.kind]
        ),
    )
    blocks: list[Block] = [table, Paragraph(_reading(found))]
    if len(found.heldout) > 1:
        blocks.append(Paragraph(_change(found)))
    if found.kind == "cls":
        blocks += _confusion(found.heldout[-1], assessment.labels)
    return blocks


def _reading(found: KindAssessment) -> str:
    """How to read the figures of a kind."""
    match found.kind:
        case "sft":
            return (
                f"Over {found.heldout[-1].values['tokens']:,.0f} response tokens, ends of sequence"
                " included. The unigram entropy of the same text, what a model that knows no"
                f" context would need, is {found.unigram or 0:.3f} nats per token."
            )
        case "va":
            return (
                "Preference accuracy: how often the chosen answer is the likelier one, by the sum"
                " of its log-probabilities, and by their mean per token. Rewards are β ="
                f" {found.beta:g} times the log-probability over that of version"
                f" {found.reference}, the reference, whose own reward accuracy is 0.5 and"
                " margin 0: ties count half."
            )
        case "cls":
            return "Macro-F1 is the mean of the F1 of the classes that occur."


def _change(found: KindAssessment) -> str:
    """Before and after, in a sentence."""
    metric = MAIN[found.kind]
    before, after = found.heldout[0], found.heldout[-1]
    was, now = before.values[metric.key], after.values[metric.key]
    if found.kind == "sft":
        verb = "takes" if now <= was else "adds"
        where = "off" if now <= was else "to"
        return f"Federation {verb} {abs(1 - now / was):.1%} {where} the base's nats per token."
    one, two = before.interval(metric), after.interval(metric)
    apart = one and two and (one[1] < two[0] or two[1] < one[0])
    return f"From the base to the last column, {metric.title} goes from {was:.3f} to {now:.3f}" + (
        "; the intervals are apart." if apart else "; the intervals overlap: it may be noise."
    )


def _clients(found: KindAssessment, subjects: Sequence[EvaluatedVersion]) -> list[Block]:
    """Each client's figures before and after, one table for each of them."""
    names = list(found.clients)
    blocks: list[Block] = [Heading("Each client's own rows", 3)]
    if len(names) > _CLIENTS:
        names = _worst(found, MAIN[found.kind])[:_CLIENTS]
        blocks.append(Paragraph(f"The {_CLIENTS} of {len(found.clients)} clients that do worst."))
    for metric in BY_CLIENT[found.kind]:
        header = (f"{metric.title}, validation", "rows", *(subject.title for subject in subjects))
        rows = [_client(metric, name, found.clients[name]) for name in names]
        rows.append(_client(metric, "all clients", found.pooled))
        blocks.append(Table(header, (*rows, *_spreads(found, metric))))
    return blocks


def _client(metric: MetricInfo, name: str, by_subject: Sequence[Metrics]) -> tuple[str, ...]:
    return (name, str(by_subject[-1].rows), *(cell(metric, one) for one in by_subject))


def _worst(found: KindAssessment, metric: MetricInfo) -> list[str]:
    known = [name for name, by_subject in found.clients.items() if by_subject[-1].rows]
    sign = 1 if metric.higher else -1
    return sorted(known, key=lambda name: sign * found.clients[name][-1].values[metric.key])


def _spreads(found: KindAssessment, metric: MetricInfo) -> list[tuple[str, ...]]:
    """Worst client, range and deviation of each subject."""
    each = [
        spread(metric, {name: own[i] for name, own in found.clients.items()})
        for i in range(len(found.pooled))
    ]
    known = [one for one in each if one is not None]
    if not known:
        return []
    d = metric.decimals
    return [
        ("worst client", NOTHING, *(f"{one.worst_value:.{d}f} ({one.worst})" for one in known)),
        (
            f"max − min of {known[-1].clients} clients",
            NOTHING,
            *(f"{one.range:.{d}f}" for one in known),
        ),
        ("standard deviation", NOTHING, *(f"{one.deviation:.{d}f}" for one in known)),
    ]


def _confusion(found: Metrics, labels: Sequence[str]) -> list[Block]:
    if len(labels) > _CLASSES:
        return [Paragraph(f"Who is taken for whom among {len(labels)} classes: in the JSON file.")]
    rows = tuple(
        (label, *(f"{count:,}" for count in counts))
        for label, counts in zip(labels, found.confusion, strict=True)
    )
    header = ("true class, down; predicted, across", *labels)
    return [Heading("Who is taken for whom", 3), Table(header, rows)]


def _compared(found: KindComparison, titles: tuple[str, str]) -> Table:
    one, two = found.figures
    rows = []
    for metric in METRICS[found.kind]:
        change = NOTHING
        if one.rows:
            change = f"{two.values[metric.key] - one.values[metric.key]:+.{metric.decimals}f}"
        rows.append((metric.title, cell(metric, one), cell(metric, two), change))
    return Table((f"{one.rows} rows", *titles, "difference"), tuple(rows))


def _phase(part: PhaseHistory) -> Paragraph:
    phase = part.phase
    return Paragraph(
        f"Phase {part.number}, {phase.objective}: losses in {UNITS[phase.kind]},"
        f" from version {part.begin}."
    )


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def _versions(made: Sequence[VersionSummary]) -> Table:
    header = ["version", "updates", "train loss", "clients' holdout before", "after"]
    judged = any(version.accuracy_before is not None for version in made)
    header += ["accuracy before", "after"] if judged else []
    rows = []
    for v in made:
        row = [str(v.version), str(len(v.updates)), _number(v.train_loss)]
        row += [_number(v.holdout_before), _number(v.holdout_after)]
        row += [_number(v.accuracy_before), _number(v.accuracy_after)] if judged else []
        rows.append((*row, f"{sum(u.nbytes for u in v.updates):,}"))
    return Table((*header, "bytes up"), tuple(rows))


def _updates(updates: Sequence[UpdateSummary]) -> Table:
    names = ("task", "client", "rows", "staleness", "FCCL weight", "× staleness", "× balance")
    judged = any(update.accuracy_before is not None for update in updates)
    extra = ("accuracy before", "after") if judged else ()
    rows = []
    for u in updates:
        row = [u.task_id, u.client_id, str(u.num_samples), str(u.staleness), f"{u.weight:.3f}"]
        row += [f"{u.staleness_factor:.3f}", f"{u.participation_factor:.2f}", f"{u.clip:.2f}"]
        row += [f"{u.coefficient:.3f}", f"{u.avg_loss:.3f}"]
        row += [_number(u.accuracy_before), _number(u.accuracy_after)] if judged else []
        rows.append(tuple(row))
    return Table((*names, "× clip", "step", "train loss", *extra), tuple(rows))

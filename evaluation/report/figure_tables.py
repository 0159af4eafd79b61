"""Blocks of a report about metrics: held-out rows, clients, answers, comparison.

`evaluation/report/history_tables.py` has the blocks about the run's history;
`common/document/blocks.py` renders both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from common.document.blocks import Block, BulletList, Heading, Paragraph, Picture, Table
from common.evaluation.metric_info import (
    CLIENT_METRICS,
    MAIN_METRIC,
    METRICS,
    REWARD_KINDS,
    MetricInfo,
)
from common.protocol.fields import RowKind
from evaluation.assessed import Assessment, EvaluatedVersion, KindAssessment
from evaluation.report.report import Report
from learning.evaluation.metrics import EvalMetrics, client_spread

if TYPE_CHECKING:
    from evaluation.comparison import Comparison, KindComparison

TITLES: dict[RowKind, str] = {
    "sft": "Instructions (sft)",
    "va": "Preferences (va)",
    "kto": "Ratings (kto)",
    "cls": "Classification (cls)",
}
MAX_CLIENTS = 30  # rows of a table of clients
_MAX_CLASSES = 20  # rows of a confusion matrix
ABSENT = "–"


def build_title(report: Report) -> list[Block]:
    assessment = report.assessment
    blocks: list[Block] = [
        Heading(f"Run {report.name}: version {assessment.version} of {report.base_name}", 1),
        Paragraph(_introduction(report)),
    ]
    if report.autocast:
        blocks.append(
            Paragraph(
                "The model was computed in bfloat16, as in training: fccl evaluate --precise"
                " computes it in float32."
            )
        )
    if report.start is not None:
        blocks.append(
            Paragraph(
                f'The run began with {report.start.describe()}: "{assessment.subjects[0].title}"'
                " is that adapter, not the bare base model."
            )
        )
    if (gap := report.gap) is not None:
        decimals = gap.metric.decimals
        blocks.append(
            Paragraph(
                f"The base was quantized ({gap.quantization}) in training and for the figures"
                f" below. {gap.metric.title} of version {assessment.version} on held-out rows:"
                f" {gap.quantized:.{decimals}f} on the quantized base,"
                f" {gap.unquantized:.{decimals}f} on the unquantized one, for which adapters are"
                " exported and into which they are merged."
            )
        )
    return blocks


def _introduction(report: Report) -> str:
    assessment = report.assessment
    if not assessment.kinds:
        return (
            "All rows stayed at the sites, and the coordinator has none: these are the figures that"
            " the sites sent."
        )
    subjects = ", ".join(subject.title for subject in assessment.subjects)
    return (
        f"On rows that no task has trained on or seen: {subjects}. Shares have their 95 %"
        " intervals (Wilson) beside them: a difference within these may be noise."
    )


def build_metrics(assessment: Assessment, prefix: str) -> list[Block]:
    """Return all metrics by kind of rows; `prefix` begins the names of pictures."""
    blocks: list[Block] = []
    for each in assessment.kinds:
        blocks += [Heading(TITLES[each.kind]), *_sample(each), *_heldout(each, assessment)]
        if any(one.rows for one in each.pooled):
            picture = Picture(f"{prefix}clients_{each.kind}.png", "Each client before and after")
            blocks += [*_clients(each, assessment.subjects), picture]
        elif each.clients:
            blocks.append(Paragraph("No client has validation rows of this kind."))
    return blocks


def build_answers(assessment: Assessment) -> list[Block]:
    if not assessment.samples:
        return []
    titles = [subject.title for subject in assessment.subjects]
    title = "Answers to held-out rows" if assessment.kinds else "Answers to prompts"
    blocks: list[Block] = [Heading(title)]
    for sample in assessment.samples:
        answers = zip(titles, sample.answers, strict=True)
        lines = (f"{title}: {answer or '(nothing)'}" for title, answer in answers)
        expected = (f"expected: {sample.expected}",) if sample.expected else ()
        blocks.append(BulletList(sample.asked, (*expected, *lines)))
    return blocks


def build_comparison(comparison: Comparison) -> list[Block]:
    one, two = comparison.sides
    text = f"Both on the held-out rows of {one.name}, each with its own tokenizer."
    if not comparison.same_base:
        text += (
            f" The base models differ ({one.base_name}, {two.base_name}): for texts, only bits per"
            " byte can be compared."
        )
    if any(each.kind in REWARD_KINDS for each in comparison.kinds):
        text += " Rewards compare each run with its own reference, by its own β."
    blocks: list[Block] = [Heading(f"{one.title} and {two.title}"), Paragraph(text)]
    for each in comparison.kinds:
        blocks.append(Heading(TITLES[each.kind], 3))
        if each.left_out:
            text = f"{each.left_out} rows are left out because they do not fit into both models."
            blocks.append(Paragraph(text))
        blocks.append(_compared(each, (one.title, two.title)))
    return blocks


def format_metric(metric: MetricInfo, metrics: EvalMetrics) -> str:
    """Return the value of a metric with its confidence interval, if it has one."""
    if metric.key not in metrics.values:
        return ABSENT
    text = f"{metrics.values[metric.key]:.{metric.decimals}f}"
    interval = metrics.interval(metric)
    return text if interval is None else f"{text} ({interval[0]:.2f} to {interval[1]:.2f})"


def _sample(found: KindAssessment) -> list[Block]:
    """Return a note if not all rows were evaluated."""
    rows = found.heldout[-1].rows + found.pooled[-1].rows
    if rows >= found.available:
        return []
    return [
        Paragraph(
            f"Evaluated on {rows:,} of {found.available:,} rows, spread evenly: all of them would"
            " take too long with a model of this size. fccl evaluate takes the number of rows."
        )
    ]


def _heldout(found: KindAssessment, assessment: Assessment) -> list[Block]:
    rows = found.heldout[-1].rows
    if not rows:
        return [Paragraph("There are no held-out rows of this kind.")]
    titles = tuple(subject.title for subject in assessment.subjects)
    table = Table(
        (f"{rows} held-out rows", *titles),
        tuple(
            (metric.title, *(format_metric(metric, one) for one in found.heldout))
            for metric in METRICS[found.kind]
        ),
    )
    blocks: list[Block] = [table, Paragraph(_explanation(found))]
    if len(found.heldout) > 1:
        blocks.append(Paragraph(_change(found, titles[0])))
    if found.kind == "cls":
        blocks += _confusion_matrix(found.heldout[-1], assessment.labels)
    return blocks


def _explanation(found: KindAssessment) -> str:
    match found.kind:
        case "sft":
            return (
                f"Over {found.heldout[-1].values['tokens']:,.0f} response tokens, ends of sequence"
                " included. The unigram entropy of the same text, which a model that knows no"
                f" context would need, is {found.unigram or 0:.3f} nats per token."
            )
        case "va":
            return (
                "Preference accuracy is how often the chosen answer is the likelier one, by the sum"
                " of its log-probabilities and by their mean per token. Rewards are β ="
                f" {found.beta:g} times the log-probability minus that of version"
                f" {found.reference}, the reference, whose own reward accuracy is 0.5 and"
                " margin 0: ties count half."
            )
        case "kto":
            return (
                f"Rewards are β = {found.beta:g} times the log-probability of an answer minus that"
                f" of version {found.reference}, the reference, whose rewards are all 0. Reward"
                " accuracy is how often the reward of a good answer is above 0 and that of a bad"
                " one below: ties count half."
            )
        case "cls":
            return "Macro-F1 is the mean of the F1 of the classes that occur."


def _change(found: KindAssessment, first: str) -> str:
    """Return the change from version 0, titled `first`, to the assessed version, in a sentence."""
    metric = MAIN_METRIC[found.kind]
    before, after = found.heldout[0], found.heldout[-1]
    was, now = before.values[metric.key], after.values[metric.key]
    if found.kind == "sft":
        verb = "lowers" if now <= was else "raises"
        return f"Federation {verb} the {first}'s nats per token by {abs(1 - now / was):.1%}."
    one, two = before.interval(metric), after.interval(metric)
    apart = one and two and (one[1] < two[0] or two[1] < one[0])
    return (
        f"From the {first} to the last column, {metric.title} goes from {was:.3f} to {now:.3f}"
        + (
            "; the intervals do not overlap."
            if apart
            else "; the intervals overlap: it may be noise."
        )
    )


def _clients(found: KindAssessment, subjects: Sequence[EvaluatedVersion]) -> list[Block]:
    names = list(found.clients)
    blocks: list[Block] = [Heading("Each client's own rows", 3)]
    if len(names) > MAX_CLIENTS:
        names = _worst_first(found, MAIN_METRIC[found.kind])[:MAX_CLIENTS]
        blocks.append(Paragraph(f"The {MAX_CLIENTS} worst of {len(found.clients)} clients."))
    for metric in CLIENT_METRICS[found.kind]:
        header = (f"{metric.title}, validation", "rows", *(subject.title for subject in subjects))
        rows = [_client_row(metric, name, found.clients[name]) for name in names]
        rows.append(_client_row(metric, "all clients", found.pooled))
        blocks.append(Table(header, (*rows, *_spread_rows(found, metric))))
    return blocks


def _client_row(
    metric: MetricInfo, name: str, by_version: Sequence[EvalMetrics]
) -> tuple[str, ...]:
    return (name, str(by_version[-1].rows), *(format_metric(metric, one) for one in by_version))


def _worst_first(found: KindAssessment, metric: MetricInfo) -> list[str]:
    known = [name for name, by_version in found.clients.items() if by_version[-1].rows]
    sign = 1 if metric.higher else -1
    return sorted(known, key=lambda name: sign * found.clients[name][-1].values[metric.key])


def _spread_rows(found: KindAssessment, metric: MetricInfo) -> list[tuple[str, ...]]:
    each = [
        client_spread(metric, {name: own[i] for name, own in found.clients.items()})
        for i in range(len(found.pooled))
    ]
    known = [one for one in each if one is not None]
    if not known:
        return []
    d = metric.decimals
    return [
        ("worst client", ABSENT, *(f"{one.worst_value:.{d}f} ({one.worst})" for one in known)),
        (f"max − min of {known[-1].clients} clients", ABSENT, *(f"{s.range:.{d}f}" for s in known)),
        ("standard deviation", ABSENT, *(f"{one.deviation:.{d}f}" for one in known)),
    ]


def _confusion_matrix(found: EvalMetrics, labels: Sequence[str]) -> list[Block]:
    if not found.confusion:  # no rows
        return []
    if len(labels) > _MAX_CLASSES:
        return [Paragraph(f"The confusion matrix of {len(labels)} classes is in the JSON file.")]
    rows = tuple(
        (label, *(f"{count:,}" for count in counts))
        for label, counts in zip(labels, found.confusion, strict=True)
    )
    header = ("true class, down; predicted, across", *labels)
    return [Heading("Confusion matrix", 3), Table(header, rows)]


def _compared(found: KindComparison, titles: tuple[str, str]) -> Table:
    one, two = found.figures
    rows = []
    for metric in METRICS[found.kind]:
        change = ABSENT
        if metric.key in one.values and metric.key in two.values:
            change = f"{two.values[metric.key] - one.values[metric.key]:+.{metric.decimals}f}"
        cells = (format_metric(metric, each) for each in (one, two))
        rows.append((metric.title, *cells, change))
    return Table((f"{one.rows} rows", *titles, "difference"), tuple(rows))

"""The report on disk: `report.md`, `report.json` and `loss.png` in the run's `report/`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.files import write_durable
from common.records import UpdateSummary
from coordinator.report import Report, Sample
from learning.evaluation import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write(report: Report) -> Path:
    """Write all three files; returns the path of the Markdown one."""
    report.directory.mkdir(parents=True, exist_ok=True)
    picture(report, report.directory / "loss.png")
    write_durable(report.directory / "report.json", json.dumps(fields(report), indent=1).encode())
    path = report.directory / "report.md"
    write_durable(path, markdown(report).encode())
    return path


def fields(report: Report) -> dict[str, Any]:
    """The report as plain maps and lists."""
    return {
        "run": report.name,
        "base_model": report.base_name,
        "adapter": str(report.adapter),
        "heldout_rows": report.rows,
        "unigram_nats_per_token": report.unigram,
        "base": asdict(report.base),
        "federated": asdict(report.federated),
        "versions": [version.fields() for version in report.versions],
        "federated_loss": report.federated_loss,
        "samples": [asdict(sample) for sample in report.samples],
    }


def markdown(report: Report) -> str:
    """The report for people."""
    last = report.versions[-1].version
    gain = 1 - report.federated.nats_per_token / report.base.nats_per_token
    parts = [
        f"# Run {report.name}: {last} versions of {report.base_name}",
        f"On {report.rows} held-out rows that no client has, response tokens only:",
        _evaluation(report),
        f"The federated adapter takes {gain:.1%} off the base model's nats per token.",
        "## Versions",
        _versions(report),
        "## Updates",
        _updates(update for version in report.versions for update in version.updates),
        "## Answers to held-out instructions",
        *(_sample(sample) for sample in report.samples),
        "## Files",
        f"- PEFT adapter: `{report.adapter}`\n- picture of the loss: `{report.directory}/loss.png`",
    ]
    return "\n\n".join(parts) + "\n"


def picture(report: Report, path: Path) -> None:
    """Training and holdout loss by version, as a PNG."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # half a second, once per run

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    made = [version for version in report.versions if version.updates]
    train = [version.train_loss or 0.0 for version in made]
    axes.plot([v.version for v in made], train, "o-", label="training, mean of the updates")
    known = sorted(report.federated_loss)
    losses = [report.federated_loss[version] for version in known]
    axes.plot(known, losses, "s--", label="clients' holdouts, before training")
    _level(axes, report.base.nats_per_token, "base, held out", right=True)
    _level(axes, report.federated.nats_per_token, "federated, held out", right=False)
    axes.margins(y=0.1)
    axes.set_xlabel("version")
    axes.set_ylabel("nats per response token")
    axes.set_title(f"Run {report.name}")
    axes.legend()
    figure.savefig(path, dpi=110)


def _level(axes: Axes, nats: float, label: str, *, right: bool) -> None:
    """A grey line with its value, written where the curves are not."""
    axes.axhline(nats, linewidth=0.8, color="grey")
    place = (0.99 if right else 0.01, nats)
    side = "right" if right else "left"
    axes.annotate(
        f"{label}: {nats:.3f}", place, xycoords=("axes fraction", "data"), ha=side, va="bottom"
    )


def _evaluation(report: Report) -> str:
    header = ("model", "nats per token", "perplexity", "bits per byte")
    unigram = ("unigram of the same text", f"{report.unigram:.3f}", "", "")
    rows = [_row("base", report.base), _row("federated", report.federated)]
    return _table(header, [unigram, *rows])


def _row(name: str, e: Evaluation) -> tuple[str, ...]:
    return (name, f"{e.nats_per_token:.3f}", f"{e.perplexity:.1f}", f"{e.bits_per_byte:.3f}")


def _versions(report: Report) -> str:
    header = ("version", "updates", "train loss", "clients' holdout before", "after", "bytes up")
    rows = [
        (
            str(v.version),
            str(len(v.updates)),
            f"{v.train_loss:.3f}",
            f"{v.holdout_before:.3f}",
            f"{v.holdout_after:.3f}",
            f"{sum(u.nbytes for u in v.updates):,}",
        )
        for v in report.versions
        if v.updates
    ]
    return _table(header, rows)


def _updates(updates: Iterable[UpdateSummary]) -> str:
    names = ("task", "client", "rows", "staleness", "FCCL weight", "× staleness", "× balance")
    header = (*names, "× clip", "step", "train loss")
    rows = [
        (
            u.task_id,
            u.client_id,
            str(u.num_samples),
            str(u.staleness),
            f"{u.weight:.3f}",
            f"{u.staleness_factor:.3f}",
            f"{u.participation_factor:.2f}",
            f"{u.clip:.2f}",
            f"{u.coefficient:.3f}",
            f"{u.avg_loss:.3f}",
        )
        for u in updates
    ]
    return _table(header, rows)


def _sample(sample: Sample) -> str:
    lines = (
        f"**{_line(sample.instruction)}**",
        f"- expected: {_line(sample.expected)}",
        f"- before: {_line(sample.before)}",
        f"- after: {_line(sample.after)}",
    )
    return "\n".join(lines)


def _line(text: str) -> str:
    """Model output in one line that Markdown takes as text."""
    flat = " ".join(text.split())[:300]
    return "".join(f"\\{char}" if char in "\\`*_[]<>#|" else char for char in flat) or "(nothing)"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

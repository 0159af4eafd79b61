"""The page of an experiment in docs/results: its question, its table, and what was found."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from common.files import write_durable
from simulation.experiments.experiment import Experiment
from simulation.experiments.plots import draw
from simulation.experiments.results import CaseSummary, Run, summarize
from simulation.experiments.statistics import Estimate, scaled

FOUND = "## What was found"
"""Heading of the text that a person writes under the table; it is kept when a page is renewed."""


def write_results(experiment: Experiment, runs: Sequence[Run], folder: Path) -> None:
    """Write the page, the table of all runs, and the picture of an experiment."""
    folder.mkdir(parents=True, exist_ok=True)
    summaries = summarize(experiment, runs)
    page = folder / f"{experiment.key}.md"
    write_durable(page, _page(experiment, summaries, _kept_text(page)).encode())
    write_durable(folder / f"{experiment.key}.csv", _csv(runs).encode())
    write_durable(folder / f"{experiment.key}.png", draw(experiment, runs, summaries))


def _kept_text(page: Path) -> str:
    if not page.exists():
        return "Not written yet.\n"
    _, _, text = page.read_text(encoding="utf-8").partition(f"{FOUND}\n\n")
    return text or "Not written yet.\n"


def _page(experiment: Experiment, summaries: Sequence[CaseSummary], found: str) -> str:
    numbers = [summary.seeds for summary in summaries]
    seeds = ", ".join(map(str, experiment.seeds))
    if numbers and min(numbers) < len(experiment.seeds):
        seeds += f" (so far {min(numbers)} to {max(numbers)} of them, see the table)"
    analytic = experiment.task == "analytic"
    rows = "" if analytic else f"Rows: the {experiment.part} half. "
    data = "" if analytic else " --data DIR"
    parts = [
        f"# {experiment.key}: {experiment.title}",
        f"**Question.** {experiment.question}",
        f"**Expected**, written before the runs. {experiment.expected}",
        f"**Settings.** {experiment.note} {rows}Seeds: {seeds}."
        " Brackets: 95 % interval of the mean over seeds (Student's t).".replace("  ", " "),
        f"**Command.** `python -m simulation.experiments {experiment.key}{data}`",
        table(experiment, summaries),
        f"![{experiment.title}]({experiment.key}.png)",
        f"All runs: [{experiment.key}.csv]({experiment.key}.csv).",
        FOUND,
    ]
    return "\n\n".join(parts) + "\n\n" + found


def table(experiment: Experiment, summaries: Sequence[CaseSummary]) -> str:
    """Return the table of an experiment in Markdown."""
    rows = [
        _time_row(s) if experiment.outcome == "time" else _loss_row(experiment, s)
        for s in summaries
    ]
    if not rows:
        return "No run is finished."
    columns = [key for key in rows[0] if any(row[key] for row in rows)]
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)]]
    lines += [[row[key] for key in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _time_row(summary: CaseSummary) -> dict[str, str]:
    return {
        "case": summary.case,
        "reached": f"{summary.reached} of {summary.seeds}",
        "virtual seconds to the target": _text(summary.target_s, 0),
        "times as fast as the baseline": _text(summary.speedup, 2),
        "seconds to the steady loss": _text(summary.steady_s, 0),
        "times as fast": _text(summary.steady_speedup, 2),
        "updates to the target": _text(summary.target_updates, 0),
        "tasks per update": f"{summary.tasks_per_update:.2f}",
        "clients heard, of 20": _text(summary.clients, 1),
    }


def _loss_row(experiment: Experiment, summary: CaseSummary) -> dict[str, str]:
    kept = summary.kept
    percent = None if kept is None else scaled(kept, 100)
    return {
        "case": summary.case,
        "seeds": str(summary.seeds) if len(experiment.seeds) > 1 else "",
        "held-out loss": _text(summary.loss, 3),
        "accuracy": _text(summary.accuracy, 3),
        "clients heard, of 20": _text(summary.clients, 0) if experiment.key == "a-skew" else "",
        "kept, % of the baseline's improvement": _text(percent, 0),
    }


def _text(value: Estimate | None, digits: int) -> str:
    return "" if value is None else value.format(digits)


def _csv(runs: Sequence[Run]) -> str:
    text = io.StringIO()
    rows = [run.figures.row() for run in runs]
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()

"""Evaluations at the sites and contributions of clients as tables of `fccl status`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from common.evaluation.contributions import ContributionRow, contribution_table
from common.evaluation.rows import EvaluationRow
from common.protocol.evaluations import EvaluatorFigures
from tui.formatting import MISSING, format_number, plural
from tui.text_table import TextTable

MAX_EVALUATIONS = 10  # newest of each phase
MAX_NAMED = 4
MAX_FIGURES = 6  # of an evaluator, side by side
BEST_MARK = "★"


def evaluation_tables(rows: Sequence[EvaluationRow], phases: Sequence[str]) -> RenderableType:
    """Return a table for each phase that was evaluated: pooled, worst client, spread, missing."""
    return Group(
        *(
            _table([row for row in rows if row.phase == phase], phases)
            for phase in sorted({row.phase for row in rows})
        )
    )


def _table(rows: Sequence[EvaluationRow], phases: Sequence[str]) -> RenderableType:
    metric, phase = rows[0].metric, rows[0].phase
    better = "higher" if metric.higher else "lower"
    objective = phases[phase] if phase < len(phases) else MISSING
    title = f"{metric.title} on the clients' own validation rows ({objective}; {better} is better)"
    table = _new_table("evaluated", "pooled", "worst client", "range", "rows", "answered")
    table.add_column("missing")
    for row in rows[-MAX_EVALUATIONS:]:
        mark = f"{BEST_MARK} " if row.best else "  "
        table.add_row(
            f"{mark}version {row.version}",
            format_number(row.value, metric.decimals),
            worst_text(row),
            format_number(row.range, metric.decimals),
            f"{row.rows:,}",
            answered_text(row),
            name_some(row.missing) or MISSING,
        )
    return Group(Text(title, style="bold"), table)


def worst_text(row: EvaluationRow) -> str:
    """Return value and name of the worst client; a dash without answers."""
    if row.worst is None:
        return MISSING
    return f"{format_number(row.worst_value, row.metric.decimals)} {row.worst}"


def answered_text(row: EvaluationRow) -> str:
    """Return how many clients answered, and whether more may."""
    asked = len(row.clients) + len(row.missing)
    return f"{len(row.clients)}/{asked}" + (" open" if row.open else "")


def name_some(names: Sequence[str]) -> str:
    """Return the names, of very many only the first."""
    rest = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {plural(rest, 'other')}" if rest > 0 else "")


def contributions(rows: Sequence[ContributionRow]) -> RenderableType:
    """Return the table of what each client contributed, to what."""
    header, cells = contribution_table(rows)
    table = _new_table(*header)
    for row in cells:
        table.add_row(*row)
    title = f"contribution of each client: 1 is average; scores from {rows[0].source!r}"
    return Group(Text(title, style="bold"), table)


def evaluator_tables(rows: Sequence[EvaluatorFigures]) -> RenderableType:
    """Return a table of the figures of each plug-in evaluator, by version."""
    names = sorted({row.evaluator for row in rows})
    return Group(*(_evaluator(name, [r for r in rows if r.evaluator == name]) for name in names))


def _evaluator(name: str, rows: Sequence[EvaluatorFigures]) -> RenderableType:
    shown = rows[-MAX_EVALUATIONS:]
    figures = list(dict.fromkeys(figure for row in shown for figure in row.figures))
    rest = len(figures) - MAX_FIGURES
    table = _new_table("version", *figures[:MAX_FIGURES], *(["others"] if rest > 0 else []))
    for row in shown:
        cells = [format_number(row.figures.get(figure)) for figure in figures[:MAX_FIGURES]]
        table.add_row(str(row.version), *cells, *([str(rest)] if rest > 0 else []))
    return Group(Text(f"figures of evaluator {name}", style="bold"), table)


def evaluator_line(row: EvaluatorFigures) -> str:
    """Return the figures of one evaluator for one version in a line."""
    figures = ", ".join(f"{name} {format_number(value)}" for name, value in row.figures.items())
    return f"{row.evaluator}, version {row.version}: {figures}"


def _new_table(first: str, *others: str) -> TextTable:
    table = TextTable(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table

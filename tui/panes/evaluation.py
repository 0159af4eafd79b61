"""Evaluation pane: how good versions are on the clients' own rows, and who contributed how much.

Shows what clients answered to evaluation tasks (`common/evaluation/rows.py`) and what follows from
the weights of their updates (`common/evaluation/contributions.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from common.evaluation.contributions import ContributionRow
from common.evaluation.rows import EvaluationRow
from common.store.view import FederationView
from tui.data.reader import Snapshot
from tui.evaluation_tables import BEST_MARK, answered_text, evaluator_line, name_some, worst_text
from tui.formatting import MISSING, format_number
from tui.panes.table_pane import TablePane
from tui.widgets.cell import LEAST, Cell, number, word
from tui.widgets.live_table import Column, LiveTable
from tui.widgets.row_list import RowList
from tui.widgets.sparkline import downsample, sparkline

BESIDE = ("contributions", "clients", "evaluators")  # shown beside the evaluations
CURVE = 10  # versions of a client's curve, the newest ones
POOLED_CURVE = 30
EVALUATIONS_HEADER = "  version phase   pooled  worst client              range  answered  missing"
NOT_EVALUATED = "no version was evaluated at the sites; see evaluation.federated in federation.toml"
COLUMNS = (
    Column("client", "client", 14),
    Column("value", "value", 8, right=True),
    Column("curve", "curve", CURVE, 1),
    Column("evaluated", "val. rows", 9, 4, right=True),
    Column("contribution", "contrib.", 8, right=True),
    Column("share", "share", 5, right=True),
    Column("phases", "of phases", 24, 2),
    Column("updates", "updates", 7, 1, right=True),
    Column("trained", "rows", 8, 3, right=True),
    Column("staleness", "stale", 5, 3, right=True),
    Column("score", "score", 8, 2, right=True),
)


class EvaluationPane(Vertical):
    """Evaluated versions, newest first; below, each client under the version at the cursor."""

    DEFAULT_CSS = """
    EvaluationPane > #eval-versions { height: 1fr; min-height: 3; }
    EvaluationPane > #eval-plugins { height: auto; max-height: 4; }
    EvaluationPane > #eval-title { height: auto; background: $panel; }
    EvaluationPane > #eval-clients { height: 1fr; min-height: 3; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("s", "sort", "sort")]

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._view: FederationView | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="eval-head", markup=False)
        yield RowList(header=EVALUATIONS_HEADER, empty=NOT_EVALUATED, id="eval-versions")
        yield Static(id="eval-plugins", markup=False)
        yield Static(id="eval-title", markup=False)
        yield LiveTable(COLUMNS, id="eval-clients")

    def show(self, snapshot: Snapshot) -> None:
        view, before = snapshot.view, self._view
        if view is None:
            return
        self._view = view
        if before is None or view.evaluations is not before.evaluations:
            newest = sorted(view.evaluations, key=lambda row: (row.phase, row.version))[::-1]
            phases = view.info.phases
            self.query_one("#eval-versions", RowList).set_rows(
                [(row.phase, row.version) for row in newest],
                lambda at: Text(_version_line(newest[at], phases)),
            )
            self._show_selected()
        elif any(getattr(view, name) is not getattr(before, name) for name in BESIDE):
            self._show_selected()

    def action_sort(self) -> None:
        self.query_one(LiveTable).next_sort()

    def on_resize(self) -> None:
        self._show_selected()

    @on(RowList.CursorMoved, "#eval-versions")
    @on(RowList.RowChosen, "#eval-versions")
    def _on_cursor_moved(self, message: RowList.CursorMoved) -> None:
        message.stop()
        self._show_selected()

    @on(LiveTable.RowChosen, "#eval-clients")
    def _on_client_chosen(self, message: LiveTable.RowChosen) -> None:
        message.stop()
        self.post_message(TablePane.RowChosen("client", str(message.key)))

    def _show_selected(self) -> None:
        view = self._view
        if view is None:
            return
        key = self.query_one("#eval-versions", RowList).key
        row = next((each for each in view.evaluations if (each.phase, each.version) == key), None)
        own = [each for each in view.evaluations if row is not None and each.phase == row.phase]
        self.query_one("#eval-head", Static).update(_curve(own, view.info.phases))
        self.query_one("#eval-title", Static).update(_title(row, view.info.contribution_source))
        figures = _evaluator_lines(view, row.version if row is not None else None)
        self.query_one("#eval-plugins", Static).update(figures)
        self.query_one("#eval-plugins").display = bool(figures)
        self.query_one(LiveTable).fill(client_cells(view, row, own))


def client_cells(
    view: FederationView, row: EvaluationRow | None, history: Sequence[EvaluationRow]
) -> Mapping[str, Mapping[str, Cell]]:
    """Return the cells of each client that takes part, contributed or evaluated.

    Args:
        view: The run.
        row: The evaluation under the cursor; None if there is none.
        history: All evaluations of its phase.
    """
    contributions = {each.client_id: each for each in view.contributions}
    evaluated = {each.client_id: each.rows for each in row.clients} if row else {}
    names = {client.client_id for client in view.clients} | contributions.keys() | evaluated.keys()
    values = [v for each in history for name in names if (v := each.client_value(name)) is not None]
    scale = (min(values), max(values)) if values else (0.0, 1.0)
    return {
        name: {
            "client": word(name),
            "value": _metric(row, name),
            "curve": Cell(_client_curve(history, name, scale), ""),
            "evaluated": number(evaluated.get(name)),
            **_contribution_cells(contributions.get(name)),
        }
        for name in names
    }


def _contribution_cells(row: ContributionRow | None) -> dict[str, Cell]:
    parts = row.phases if row else ()
    phases = " ".join(f"{part.objective} {part.share:.0%}" for part in parts)
    return {
        "contribution": number(row.contribution if row else None, 2),
        "share": _percent(row.share if row else None),
        "phases": word(phases),
        "updates": number(row.updates if row else None),
        "trained": number(row.samples if row else None),
        "staleness": number(row.staleness if row else None, 1),
        "score": Cell(
            f"{row.score:.3g}" if row else MISSING, row.score if row else LEAST, "", True
        ),
    }


def _percent(share: float | None) -> Cell:
    return Cell(MISSING, LEAST, right=True) if share is None else _figure(f"{share:.0%}", share)


def _score(score: float | None) -> Cell:
    return Cell(MISSING, LEAST, right=True) if score is None else _figure(f"{score:.3g}", score)


def _figure(text: str, order: float) -> Cell:
    return Cell(text, order, right=True)


def _metric(row: EvaluationRow | None, client: str) -> Cell:
    if row is None:
        return number(None)
    cell = number(row.client_value(client), row.metric.decimals)
    return Cell(cell.text, cell.order, "yellow", True) if client == row.worst else cell


def _client_curve(history: Sequence[EvaluationRow], client: str, scale: tuple[float, float]) -> str:
    values = [value for row in history if (value := row.client_value(client)) is not None]
    return sparkline(values[-CURVE:], *scale)


def _version_line(row: EvaluationRow, phases: Sequence[str]) -> str:
    phase = phases[row.phase][:5] if row.phase < len(phases) else MISSING
    mark = BEST_MARK if row.best else " "
    decimals = row.metric.decimals
    return (
        f"{mark} {row.version:>7} {phase:<5} {format_number(row.value, decimals):>8}"
        f"  {worst_text(row)[:22]:<22} {format_number(row.range, decimals):>8}"
        f"  {answered_text(row):<8}  {name_some(row.missing)}"
    )


def _curve(history: Sequence[EvaluationRow], phases: Sequence[str]) -> Text:
    """Return the pooled metric over the versions of a phase, and the best one."""
    values = [row.value for row in history if row.value is not None]
    if not values:
        return Text("")
    metric, phase = history[0].metric, history[0].phase
    objective = phases[phase] if phase < len(phases) else MISSING
    curve = sparkline(downsample(values, POOLED_CURVE), min(values), max(values))
    first, last = (format_number(value, metric.decimals) for value in (values[0], values[-1]))
    better = "higher" if metric.higher else "lower"
    best = next((f"; {BEST_MARK} version {row.version}" for row in history if row.best), "")
    text = f"  {metric.title}, {better} is better: {first} {curve} {last}{best}"
    return Text.assemble((objective, "bold"), text)


def _evaluator_lines(view: FederationView, version: int | None) -> str:
    """Return the figures of plug-in evaluators for a version; where it has none, the newest."""
    newest = {each.evaluator: each for each in view.evaluators}
    own = {each.evaluator: each for each in view.evaluators if each.version == version}
    return "\n".join(evaluator_line(each) for each in (newest | own).values())


def _title(row: EvaluationRow | None, source: str) -> str:
    weights = f"contribution: 1 is average, scores from {source!r}"
    return weights if row is None else f"version {row.version}, {row.metric.title}; {weights}"

"""Screen with the history of one client or worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from common.byte_sizes import format_bytes
from common.protocol.versions import UpdateSummary
from common.store.view import FederationView
from tui.data.figures import AppliedUpdate
from tui.data.reader import Snapshot
from tui.data.update_counts import UpdateCounts
from tui.formatting import format_parts
from tui.panes.inbox import describe_last_batch
from tui.panes.table_pane import RowNoun
from tui.widgets.cell import Cell, number, word
from tui.widgets.live_table import Column, LiveTable
from tui.widgets.sparkline import downsample, sparkline

COLUMNS = (
    Column("version", "version", 7, right=True),
    Column("partner", "with", 16, 3),
    Column("base", "base", 5, 2, right=True),
    Column("staleness", "stale", 5, 1, right=True),
    Column("loss", "loss", 7, 0, right=True),
    Column("before", "before", 7, 1, right=True),
    Column("after", "after", 7, 1, right=True),
    Column("score", "score", 8, 3, right=True),
    Column("weight", "weight", 6, 0, right=True),
    Column("coefficient", "coeff.", 7, 2, right=True),
    Column("norm", "‖Δ‖", 7, 3, right=True),
    Column("steps", "steps", 5, 4, right=True),
    Column("seconds", "seconds", 8, 0, right=True),
    Column("nbytes", "bytes", 9, 4, right=True),
    Column("task", "task", 22, 5),
)
CLIENTS_NAMED = 8


class DetailScreen(ModalScreen[None]):
    """Current state and applied updates of a client or worker, newest first."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,enter", "dismiss", "close")]

    def __init__(self, noun: RowNoun, key: str) -> None:
        """Create the screen; `key` is the client's name, or `site/worker`."""
        super().__init__()
        self.noun = noun
        self.key = key
        self._counts = UpdateCounts()

    def compose(self) -> ComposeResult:
        with Vertical(id="detail"):
            yield Static(id="about", markup=False)
            yield LiveTable(COLUMNS)

    def on_mount(self) -> None:
        table = self.query_one(LiveTable)
        table.descending = True
        table.focus()

    def show(self, snapshot: Snapshot) -> None:
        """Show a snapshot; do nothing while the screen opens or closes."""
        if snapshot.view is None or not self.query("#about"):
            return
        updates = self._counts.by_client if self.noun == "client" else self._counts.by_worker
        applied = updates(snapshot.view).get(self.key, ())
        about = self._describe(snapshot.view, applied, snapshot.wall_time)
        self.query_one("#about", Static).update(about)
        rows = {f"{version}/{u.task_id}": self._row(version, u) for version, u in applied}
        self.query_one(LiveTable).fill(rows)

    def on_row_list_row_chosen(self) -> None:
        self.dismiss()

    def _describe(self, view: FederationView, applied: Sequence[AppliedUpdate], now: float) -> Text:
        state = self._worker_state(view) if self.noun == "worker" else self._client_state(view)
        lines = [f"{self.key}: {state}"]
        if applied:
            losses = [update.stats.avg_loss for _, update in applied]
            curve = sparkline(downsample(losses, 40), min(losses), max(losses))
            total = sum(update.weight for _, update in applied)
            sent = format_bytes(sum(update.nbytes for _, update in applied))
            lines.append(f"{len(applied)} updates applied, total weight {total:.2f}, {sent} sent")
            lines.append(f"loss {losses[0]:.3f} {curve} {losses[-1]:.3f}")
            if spent := format_parts(applied[-1][1].stats.parts()):
                lines.append(f"last update: {spent}")
        else:
            lines.append("no update applied yet")
        if self.noun == "client":
            inbox = (row for row in view.inbox if row.client_id == self.key)
            lines += [describe_last_batch(row, now) for row in inbox]
        return Text("\n".join([*lines, "press escape to close"]))

    def _worker_state(self, view: FederationView) -> str:
        for worker in view.workers:
            if f"{worker.site}/{worker.worker_id}" == self.key:
                clients = ", ".join(worker.clients[:CLIENTS_NAMED]) or "no client"
                others = len(worker.clients) - CLIENTS_NAMED
                more = f" and {others} more" if others > 0 else ""
                where = "".join(f", {part}" for part in (worker.device, worker.host) if part)
                return f"{worker.state}{where}; serves {clients}{more}"
        return "no heartbeat any more"

    def _client_state(self, view: FederationView) -> str:
        for row in view.clients:
            if row.client_id == self.key:
                task = f"task {row.task_id}" if row.task_id else "no open task"
                state = ", quarantined" if row.quarantined else ""
                return f"site {row.site}, {row.rows:,} rows, {task}{state}"
        return "takes no part any more"

    def _row(self, version: int, update: UpdateSummary) -> dict[str, Cell]:
        stats = update.stats
        return {
            # A version may hold a client twice; the task makes the order unambiguous.
            "version": Cell(str(version), f"{version:09}{update.task_id}", right=True),
            "partner": word(update.worker_id if self.noun == "client" else update.client_id),
            "base": number(update.base_version),
            "staleness": number(update.staleness),
            "loss": number(stats.avg_loss, 3),
            "before": number(stats.loss_before, 3),
            "after": number(stats.loss_after, 3),
            "score": number(update.score, 3),
            "weight": number(update.weight, 2),
            "coefficient": number(update.coefficient, 3),
            "norm": number(stats.delta_norm, 3),
            "steps": number(stats.steps),
            "seconds": number(stats.train_seconds, 1),
            "nbytes": Cell(format_bytes(update.nbytes), update.nbytes, right=True),
            "task": word(update.task_id),
        }

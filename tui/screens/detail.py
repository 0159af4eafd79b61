"""The history of one client or worker, over the pane that it was chosen in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from common.protocol.versions import UpdateSummary
from common.store.view import FederationView
from tui.data.figures import AppliedUpdate
from tui.data.reader import Snapshot
from tui.data.update_counts import UpdateCounts
from tui.formatting import format_bytes
from tui.panes.inbox import about
from tui.widgets.cell import Cell, number, word
from tui.widgets.live_table import Column, LiveTable
from tui.widgets.sparkline import downsample, sparkline

COLUMNS = (
    Column("version", "version", 7, right=True),
    Column("who", "with", 16, 3),
    Column("base", "from", 5, 2, right=True),
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


class DetailScreen(ModalScreen[None]):
    """Grows with the run, like the panes."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,enter", "dismiss", "close")]

    def __init__(self, noun: str, key: str) -> None:
        """Show one.

        Args:
            noun: `client` or `worker`.
            key: Its row in the pane: a client's name, or a worker's site and name.
        """
        super().__init__()
        self.noun = noun
        self.key = key
        self._tally = UpdateCounts()

    def compose(self) -> ComposeResult:
        """What it is now, and what it did."""
        with Vertical(id="detail"):
            yield Static(id="about", markup=False)
            yield LiveTable(COLUMNS)

    def on_mount(self) -> None:
        """The newest first."""
        table = self.query_one(LiveTable)
        table.descending = True
        table.focus()

    def show(self, snapshot: Snapshot) -> None:
        """Show a snapshot on the screen."""
        if snapshot.view is None:
            return
        table = self._tally.by_client if self.noun == "client" else self._tally.by_worker
        done = table(snapshot.view).get(self.key, ())
        self.query_one("#about", Static).update(
            self._about(snapshot.view, done, snapshot.wall_time)
        )
        rows = {f"{version}/{u.task_id}": self._row(version, u) for version, u in done}
        self.query_one(LiveTable).fill(rows)

    def on_row_list_row_chosen(self) -> None:
        """Enter, on a row: there is nothing below."""
        self.dismiss()

    def _about(self, view: FederationView, done: Sequence[AppliedUpdate], now: float) -> Text:
        lines = [f"{self.key}: {self._now(view)}"]
        if done:
            losses = [update.stats.avg_loss for _, update in done]
            low, high = min(losses), max(losses)
            curve = sparkline(downsample(losses, 40), low, high)
            total = sum(update.weight for _, update in done)
            sent = format_bytes(sum(update.nbytes for _, update in done))
            lines.append(f"{len(done)} updates applied, weights {total:.2f} in all, {sent} sent")
            lines.append(f"loss {losses[0]:.3f} {curve} {losses[-1]:.3f}")
        else:
            lines.append("no update applied yet")
        if self.noun == "client":
            lines += [about(row, now) for row in view.inbox if row.client_id == self.key]
        return Text("\n".join([*lines, "escape closes"]))

    def _now(self, view: FederationView) -> str:
        if self.noun == "worker":
            for worker in view.workers:
                if f"{worker.site}/{worker.worker_id}" == self.key:
                    clients = ", ".join(worker.clients[:8]) or "no client"
                    more = f" and {len(worker.clients) - 8} more" if worker.clients[8:] else ""
                    where = "".join(f", {part}" for part in (worker.device, worker.host) if part)
                    return f"{worker.state}{where}; serves {clients}{more}"
            return "no heartbeat any more"
        for row in view.clients:
            if row.client_id == self.key:
                task = f"task {row.task_id}" if row.task_id else "no open task"
                out = ", quarantined" if row.quarantined else ""
                return f"site {row.site}, {row.rows:,} rows, {task}{out}"
        return "takes no part any more"

    def _row(self, version: int, update: UpdateSummary) -> dict[str, Cell]:
        return {
            # A client may be in a version twice: the order must not be the same.
            "version": Cell(str(version), f"{version:09}{update.task_id}", right=True),
            "who": word(update.worker_id if self.noun == "client" else update.client_id),
            "base": number(update.base_version),
            "staleness": number(update.staleness),
            "loss": number(update.stats.avg_loss, 3),
            "before": number(update.stats.loss_before, 3),
            "after": number(update.stats.loss_after, 3),
            "score": number(update.score, 3),
            "weight": number(update.weight, 2),
            "coefficient": number(update.coefficient, 3),
            "norm": number(update.stats.delta_norm, 3),
            "steps": number(update.stats.steps),
            "seconds": number(update.stats.train_seconds, 1),
            "nbytes": Cell(format_bytes(update.nbytes), update.nbytes, right=True),
            "task": word(update.task_id),
        }

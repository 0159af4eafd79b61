"""The third pane: every client, as the coordinator sees it, and what its worker says."""

from __future__ import annotations

from collections.abc import Sequence

from common.records import Heartbeat
from common.view import ClientRow, FederationView
from tui import figures
from tui.feed import Look
from tui.figures import Done
from tui.panes.listing import Listing
from tui.panes.workers import progress
from tui.widgets.cell import Cell, number, state, word
from tui.widgets.spark import spark
from tui.widgets.table import Column

COLUMNS = (
    Column("client", "client", 14),
    Column("state", "state", 13),
    Column("beat", "beat", 5, 3, right=True),
    Column("base", "from", 5, 3, right=True),
    Column("staleness", "stale", 5, 1, right=True),
    Column("progress", "progress", 12, 0),
    Column("tokens", "tokens/s", 8, 4, right=True),
    Column("loss", "loss", 7, 0, right=True),
    Column("weight", "weight", 6, 0, right=True),
    Column("weights", "weights", figures.RECENT, 2),
    Column("total", "total", 7, 3, right=True),
    Column("applied", "applied", 7, 5, right=True),
    Column("rows", "rows", 7, 6, right=True),
    Column("site", "site", 12, 7),
    Column("task", "task", 22, 8),
)


class Clients(Listing):
    """One row per client."""

    COLUMNS = COLUMNS
    NOUN = "client"

    def rows(self, look: Look) -> dict[str, dict[str, Cell]]:
        """By client."""
        view = look.view
        if view is None:
            return {}
        done = self.history.by_client(view.versions)
        at_work = {w.client_id: w for w in view.workers if w.client_id and w.task_id}
        served = {client for worker in view.workers for client in worker.clients}
        return {
            row.client_id: _row(
                view,
                row,
                at_work.get(row.client_id),
                row.client_id in served,
                done.get(row.client_id, ()),
                look.clock,
            )
            for row in view.clients
        }


def client_state(row: ClientRow, worker: Heartbeat | None, served: bool) -> str:
    """What a client does, in one word.

    Args:
        row: The coordinator's.
        worker: That is busy with it.
        served: Whether a live worker has its rows.
    """
    if row.quarantined:
        return "quarantined"
    if worker is not None:
        return worker.state
    if not served:
        return "away"
    return "idle" if row.task_id is None else "queued"


def _row(
    view: FederationView,
    row: ClientRow,
    worker: Heartbeat | None,
    served: bool,
    done: Sequence[Done],
    now: float,
) -> dict[str, Cell]:
    recent = figures.weights(done, view.info.version)
    training = worker is not None and worker.state == "training"
    return {
        "client": word(row.client_id),
        "state": state(client_state(row, worker, served)),
        "beat": number(max(0.0, now - worker.sent_at) if worker else None, suffix=" s"),
        "base": number(row.base_version),
        "staleness": number(row.staleness),
        "progress": progress(worker.progress if worker else 0.0, worker is not None),
        "tokens": number(worker.tokens_per_s if worker and training else None),
        "loss": number(row.last_loss, 3),
        "weight": number(row.weight, 2),
        # Against 1, the whole of a version: bars of two clients can be compared.
        "weights": Cell(spark(recent, 0, 1), sum(weight or 0 for weight in recent)),
        "total": number(sum(update.weight for _, update in done), 2),
        "applied": number(row.participation),
        "rows": number(row.rows),
        "site": word(row.site),
        "task": word(row.task_id),
    }

"""The third pane: every client, as the coordinator sees it, and what its worker says."""

from __future__ import annotations

from typing import Any, NamedTuple

from common.protocol.heartbeat import Heartbeat
from common.store.view import ClientRow
from tui.data import figures
from tui.data.reader import Snapshot
from tui.panes.table_pane import TablePane
from tui.panes.workers import progress
from tui.widgets.cell import Cell, number, state, word
from tui.widgets.live_table import Column
from tui.widgets.sparkline import sparkline

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


class _About(NamedTuple):
    """All that a row is made of."""

    row: ClientRow
    worker: Heartbeat | None
    age: int | None
    served: bool
    total: float
    recent: tuple[float | None, ...]


class ClientsPane(TablePane):
    """One row per client."""

    COLUMNS = COLUMNS
    NOUN = "client"

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._made: dict[str, tuple[_About, dict[str, Cell]]] = {}

    def rows(self, snapshot: Snapshot) -> dict[str, dict[str, Cell]]:
        """By client."""
        view = snapshot.view
        if view is None:
            return {}
        done = self.tally.by_client(view)
        at_work = {w.client_id: w for w in view.workers if w.client_id and w.task_id}
        served = {client for worker in view.workers for client in worker.clients}
        made, self._made = self._made, {}
        rows = {}
        for row in view.clients:
            name, worker = row.client_id, at_work.get(row.client_id)
            about = _About(
                row=row,
                worker=worker,
                age=round(max(0.0, snapshot.wall_time - worker.sent_at)) if worker else None,
                served=name in served,
                total=self.tally.total(name),
                recent=figures.weights(done.get(name, ()), view.info.version),
            )
            known = made.get(name)
            # The same facts make the same cells: a thousand idle clients cost a comparison each.
            cells = known[1] if known is not None and known[0] == about else _row(about)
            self._made[name] = about, cells
            rows[name] = cells
        return rows


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


def _row(about: _About) -> dict[str, Cell]:
    row, worker = about.row, about.worker
    training = worker is not None and worker.state == "training"
    return {
        "client": word(row.client_id),
        "state": state(client_state(row, worker, about.served)),
        "beat": number(about.age, suffix=" s"),
        "base": number(row.base_version),
        "staleness": number(row.staleness),
        "progress": progress(worker.progress if worker else 0.0, worker is not None),
        "tokens": number(worker.tokens_per_s if worker and training else None),
        "loss": number(row.last_loss, 3),
        "weight": number(row.weight, 2),
        # Against 1, the whole of a version: bars of two clients can be compared.
        "weights": Cell(sparkline(about.recent, 0, 1), sum(weight or 0 for weight in about.recent)),
        "total": number(about.total, 2),
        "applied": number(row.participation),
        "rows": number(row.rows),
        "site": word(row.site),
        "task": word(row.task_id),
    }

"""Clients pane: each client as the coordinator sees it, with the heartbeat of its worker."""

from __future__ import annotations

from typing import Any, NamedTuple

from common.protocol.heartbeat import Heartbeat
from common.store.view import ClientRow
from tui.data import figures
from tui.data.reader import Snapshot
from tui.panes.table_pane import TablePane
from tui.panes.workers import progress_cell
from tui.widgets.cell import Cell, number, state, word
from tui.widgets.live_table import Column
from tui.widgets.sparkline import sparkline

COLUMNS = (
    Column("client", "client", 14),
    Column("state", "state", 13),
    Column("beat", "beat", 5, 3, right=True),
    Column("base", "base", 5, 3, right=True),
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


class _RowData(NamedTuple):
    """Everything that a row depends on."""

    row: ClientRow
    worker: Heartbeat | None
    heartbeat_age: int | None
    served: bool
    resting: bool
    total_weight: float
    recent_weights: tuple[float | None, ...]


class ClientsPane(TablePane):
    """Table with a row per client."""

    COLUMNS = COLUMNS
    NOUN = "client"

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._drawn: dict[str, tuple[_RowData, dict[str, Cell]]] = {}

    def rows(self, snapshot: Snapshot) -> dict[str, dict[str, Cell]]:
        view = snapshot.view
        if view is None:
            return {}
        updates = self.counts.by_client(view)
        workers = {w.client_id: w for w in view.workers if w.client_id and w.task_id}
        served, resting = set[str](), set[str]()
        for beat in view.workers:
            (served if beat.rests_until is None else resting).update(beat.clients)
        previous, self._drawn = self._drawn, {}
        rows = {}
        for row in view.clients:
            name, worker = row.client_id, workers.get(row.client_id)
            data = _RowData(
                row=row,
                worker=worker,
                heartbeat_age=round(max(0.0, snapshot.wall_time - worker.sent_at))
                if worker
                else None,
                served=name in served,
                resting=name in resting,
                total_weight=self.counts.total_weight(name),
                recent_weights=figures.recent_weights(updates.get(name, ()), view.info.version),
            )
            drawn = previous.get(name)
            # Equal data keeps the same cells: a thousand idle clients cost a comparison each.
            cells = drawn[1] if drawn is not None and drawn[0] == data else _row(data)
            self._drawn[name] = data, cells
            rows[name] = cells
        return rows


def client_state(
    row: ClientRow, worker: Heartbeat | None, served: bool, resting: bool = False
) -> str:
    """Return the state of a client in one word.

    Args:
        worker: The worker that is busy with its task.
        served: True if a live worker has its rows.
        resting: True if a live worker has them that rests outside its hours.
    """
    if row.quarantined:
        return "quarantined"
    if worker is not None:
        return worker.state
    if not served:
        return "resting" if resting else "away"
    return "idle" if row.task_id is None else "queued"


def _row(data: _RowData) -> dict[str, Cell]:
    row, worker = data.row, data.worker
    training = worker is not None and worker.state == "training"
    return {
        "client": word(row.client_id),
        "state": state(client_state(row, worker, data.served, data.resting)),
        "beat": number(data.heartbeat_age, suffix=" s"),
        "base": number(row.base_version),
        "staleness": number(row.staleness),
        "progress": progress_cell(worker.progress if worker else 0.0, worker is not None),
        "tokens": number(worker.tokens_per_s if worker and training else None),
        "loss": number(row.last_loss, 3),
        "weight": number(row.weight, 2),
        # Scaled to 1, the total weight of a version, so that bars of two clients compare.
        "weights": Cell(
            sparkline(data.recent_weights, 0, 1), sum(weight or 0 for weight in data.recent_weights)
        ),
        "total": number(data.total_weight, 2),
        "applied": number(row.participation),
        "rows": number(row.rows),
        "site": word(row.site),
        "task": word(row.task_id),
    }

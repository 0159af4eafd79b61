"""Workers pane: each live worker, as its heartbeat describes it."""

from __future__ import annotations

from dataclasses import replace

from common.clock import format_time
from common.protocol.heartbeat import Heartbeat
from common.store.view import FederationView
from tui.data.reader import Snapshot
from tui.formatting import MISSING
from tui.panes.table_pane import TablePane
from tui.widgets.bar import progress_bar
from tui.widgets.cell import LEAST, Cell, number, state, word
from tui.widgets.live_table import Column

COLUMNS = (
    Column("worker", "worker", 16),
    Column("state", "state", 12),
    Column("beat", "beat", 5, 1, right=True),
    Column("client", "client", 12),
    Column("progress", "progress", 12, 0),
    Column("base", "base", 5, 3, right=True),
    Column("staleness", "stale", 5, 2, right=True),
    Column("tokens", "tokens/s", 9, 0, right=True),
    Column("loss", "loss", 7, 1, right=True),
    Column("applied", "applied", 7, 4, right=True),
    Column("site", "site", 10, 5),
    Column("device", "device", 20, 6),
    Column("host", "host", 16, 7),
)


class WorkersPane(TablePane):
    """Table with a row per heartbeat."""

    COLUMNS = COLUMNS
    NOUN = "worker"

    def rows(self, snapshot: Snapshot) -> dict[str, dict[str, Cell]]:
        if snapshot.view is None:
            return {}
        updates = self.counts.by_worker(snapshot.view)
        return {
            (key := f"{worker.site}/{worker.worker_id}"): _row(
                snapshot.view, worker, snapshot.wall_time, len(updates.get(key, ()))
            )
            for worker in snapshot.view.workers
        }


def progress_cell(share: float, busy: bool) -> Cell:
    """Return the progress of a task as a bar and in percent; a dash without a task."""
    if not busy:
        return Cell(MISSING, LEAST)
    return Cell(f"{progress_bar(share, 1, 7)} {share:4.0%}", share)


def _staleness(view: FederationView, base: int | None) -> int | None:
    # A heartbeat may be newer than the run's version that was read.
    return None if base is None else max(0, view.info.version - base)


def _state(worker: Heartbeat) -> Cell:
    cell = state(worker.state)
    if worker.state != "resting" or worker.rests_until is None:
        return cell
    return replace(cell, text=f"{cell.text} until {format_time(worker.rests_until)}")


def _row(view: FederationView, worker: Heartbeat, now: float, applied: int) -> dict[str, Cell]:
    base, busy = worker.base_version, worker.task_id is not None
    return {
        # Two sites may have workers of one name; the site makes the order unambiguous.
        "worker": Cell(worker.worker_id, f"{worker.worker_id} {worker.site}"),
        "state": _state(worker),
        "beat": number(max(0.0, now - worker.sent_at), suffix=" s"),
        "client": word(worker.client_id),
        "progress": progress_cell(worker.progress, busy),
        "base": number(base if busy else None),
        "staleness": number(_staleness(view, base) if busy else None),
        "tokens": number(worker.tokens_per_s if worker.state == "training" else None),
        "loss": number(worker.last_loss, 3),
        "applied": number(applied),
        "site": word(worker.site),
        "device": word(worker.device),
        "host": word(worker.host),
    }

"""State of a run as one panel, as `fccl status` prints it."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from common.clock import format_time
from common.protocol.heartbeat import Heartbeat
from common.store.inbox_totals import add_up
from common.store.view import FederationView
from tui.formatting import format_event

STATUS_STYLES = {"running": "green", "finished": "green", "waiting": "yellow", "stopped": "yellow"}


def status_panel(view: FederationView, now: float, events: int = 6) -> RenderableType:
    """Return the state of a run, its clients, workers and newest events.

    Ages are relative to `now`, in seconds since the epoch.
    """
    return Group(
        _summary(view, now),
        _clients(view),
        _workers(view, now),
        *(
            Text(format_event(event), overflow="ellipsis", no_wrap=True)
            for event in view.events[-events:]
        ),
    )


def _summary(view: FederationView, now: float) -> RenderableType:
    info = view.info
    status = f"[bold {STATUS_STYLES.get(info.status, 'red')}]{info.status}[/]"
    losses = [v.train_loss for v in view.versions if v.train_loss is not None]
    depths = ", ".join(f"{q.queue.split('.', 2)[-1]} {q.messages}" for q in view.queues)
    grid = Table.grid(padding=(0, 2))
    grid.add_row("run", f"{info.name}  {status}  {info.detail}")
    bar = ProgressBar(total=info.total_versions, completed=info.version, width=30)
    count = f"{info.version} of {info.total_versions}, {info.phases[info.phase]}"
    grid.add_row("version", _side_by_side(bar, count))
    buffer = f"{info.buffered} of {info.buffer_size} updates; {info.open_tasks} tasks open"
    grid.add_row("buffer", f"{buffer}; {info.accepted} accepted, {info.rejected} rejected")
    if losses:
        grid.add_row("train loss", "  ".join(f"{loss:.3f}" for loss in losses[-10:]))
    grid.add_row("queues", depths or "none")
    if view.inbox:
        grid.add_row("live input", add_up(view.inbox).text())
    grid.add_row("updated", f"{max(0.0, now - info.updated_at):.0f} s ago")
    return grid


def _side_by_side(left: RenderableType, right: str) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_row(left, right)
    return grid


def _clients(view: FederationView) -> RenderableType:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("client", "site", "rows", "tasks", "applied", "open task", "staleness"):
        table.add_column(name, justify="left" if name in ("client", "site") else "right")
    table.add_column("last loss", justify="right")
    table.add_column("weight", justify="right")
    for row in view.clients:
        cells = (row.rows, row.issued, row.participation, row.task_id, row.staleness)
        name = f"{row.client_id} (quarantined)" if row.quarantined else row.client_id
        table.add_row(
            name,
            row.site,
            *("-" if cell is None else str(cell) for cell in cells),
            "-" if row.last_loss is None else f"{row.last_loss:.3f}",
            "-" if row.weight is None else f"{row.weight:.2f}",
        )
    return table


def _state(worker: Heartbeat) -> str:
    if worker.state != "resting" or worker.rests_until is None:
        return worker.state
    return f"resting until {format_time(worker.rests_until)}"


def _workers(view: FederationView, now: float) -> RenderableType:
    if not view.workers:
        return Text("no live workers", style="yellow")
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("worker", "state", "task", "client", "progress", "tokens/s", "beat", "device"):
        table.add_column(name)
    for worker in view.workers:
        table.add_row(
            worker.worker_id,
            _state(worker),
            worker.task_id or "-",
            worker.client_id or "-",
            f"{worker.progress:.0%}",
            f"{worker.tokens_per_s:,.0f}",
            f"{max(0.0, now - worker.sent_at):.0f} s",
            worker.device,
        )
    return table

"""State of a run as one panel, as `fccl status` prints it."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.text import Text

from common.byte_sizes import format_bytes
from common.clock import format_time
from common.privacy import NOT_COVERED
from common.protocol.heartbeat import Heartbeat
from common.protocol.naming import LOCAL_SITE
from common.store.inbox_totals import add_up
from common.store.view import ClientRow, FederationView
from common.text import one_line
from tui.evaluation_tables import contributions, evaluation_tables, evaluator_tables, name_some
from tui.formatting import format_event, plural
from tui.text_table import TextTable

STATUS_STYLES = {"running": "green", "finished": "green", "waiting": "yellow", "stopped": "yellow"}


def status_panel(view: FederationView, now: float, events: int = 6) -> RenderableType:
    """Return the state of a run, its clients, workers and newest events.

    Ages are relative to `now`, in seconds since the epoch.
    """
    return Group(
        _summary(view, now),
        _clients(view),
        _workers(view, now),
        *([evaluation_tables(view.evaluations, view.info.phases)] if view.evaluations else []),
        *([evaluator_tables(view.evaluators)] if view.evaluators else []),
        *([contributions(view.contributions)] if view.contributions else []),
        *(
            Text(format_event(event), overflow="ellipsis", no_wrap=True)
            for event in view.events[-events:]
        ),
    )


def _summary(view: FederationView, now: float) -> RenderableType:
    info = view.info
    status = (info.status, f"bold {STATUS_STYLES.get(info.status, 'red')}")
    losses = [v.train_loss for v in view.versions if v.train_loss is not None]
    depths = ", ".join(f"{q.queue.split('.', 2)[-1]} {q.messages}" for q in view.queues)
    grid = TextTable.grid(padding=(0, 2))
    detail = one_line(info.detail)
    grid.add_row("run", Text.assemble(one_line(info.name), "  ", status, "  ", detail))
    bar = ProgressBar(total=info.total_versions, completed=info.version, width=30)
    count = f"{info.version} of {info.total_versions}, {info.phases[info.phase]}"
    grid.add_row("version", _side_by_side(bar, count))
    buffer = f"{info.buffered} of {info.buffer_size} updates; {info.open_tasks} tasks open"
    grid.add_row("buffer", f"{buffer}; {info.accepted} accepted, {info.rejected} rejected")
    if text := _live_clients(view):
        grid.add_row("live", text)
    if text := _evaluated(view):
        grid.add_row("evaluated", text)
    if info.scores.updates:
        cost = f"{info.scores.seconds:.0f} s, {format_bytes(info.scores.nbytes)}"
        scored = f"{plural(info.scores.updates, 'update')} scored by {info.contribution_source!r}"
        grid.add_row("scores", f"{scored}: {cost}")
    if info.privacy is not None:
        grid.add_row("privacy", info.privacy.text())
        grid.add_row("", NOT_COVERED)
    if losses:
        grid.add_row("train loss", "  ".join(f"{loss:.3f}" for loss in losses[-10:]))
    grid.add_row("queues", depths or "none")
    if view.inbox:
        grid.add_row("live input", add_up(view.inbox).text())
    grid.add_row("updated", f"{max(0.0, now - info.updated_at):.0f} s ago")
    return grid


def _live_clients(view: FederationView) -> str:
    """Return how many clients are live, and which are not; empty where the store does not say."""
    info = view.info
    if info.live_clients is None or info.min_clients is None:
        return ""
    text = f"{info.live_clients} of {plural(info.clients, 'client')}; minimum {info.min_clients}"
    silent = [_silence(row) for row in view.clients if row.live is False]
    return f"{text}; {name_some(silent)}" if silent else text


def _silence(row: ClientRow) -> str:
    if row.seen_at is None:
        return f"{row.client_id} not seen yet"
    return f"{row.client_id} silent since {format_time(row.seen_at)}"


def _evaluated(view: FederationView) -> str:
    """Return the best version and the number of open evaluations; empty without any."""
    parts = []
    if (best := view.best) is not None and best.value is not None:
        value = f"{best.value:.{best.metric.decimals}f} {best.metric.title}"
        parts.append(f"version {best.version} is best: {value}")
    if view.info.open_evaluations:
        parts.append(f"{plural(view.info.open_evaluations, 'evaluation')} open")
    declined = [row.client_id for row in view.clients if row.declines]
    parts += [f"{name_some(declined)} declines"] if declined else []
    return "; ".join(parts)


def _side_by_side(left: RenderableType, right: str) -> RenderableType:
    grid = TextTable.grid(padding=(0, 1))
    grid.add_row(left, right)
    return grid


def _clients(view: FederationView) -> RenderableType:
    table = TextTable(box=None, header_style="bold", padding=(0, 2, 0, 0))
    # The only client of a site is called like it, and clients without a site are all `local`.
    has_sites = any(row.site not in (row.client_id, LOCAL_SITE) for row in view.clients)
    for name in ("client", "site") if has_sites else ("client",):
        table.add_column(name)
    for name in ("rows", "tasks", "applied", "open task", "staleness", "last loss", "weight"):
        table.add_column(name, justify="right")
    for row in view.clients:
        cells = (row.rows, row.issued, row.participation, row.task_id, row.staleness)
        name = f"{row.client_id} (quarantined)" if row.quarantined else row.client_id
        table.add_row(
            *((name, row.site) if has_sites else (name,)),
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
    table = TextTable(box=None, header_style="bold", padding=(0, 2, 0, 0))
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

"""Inbox pane: what clients learn from live input between rounds. Shows figures, never texts."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.widgets import Static

from common.protocol.heartbeat import InboxFigures
from common.store.inbox_totals import InboxHistory, add_up
from tui.data.reader import Snapshot
from tui.formatting import MISSING, format_duration, format_number
from tui.panes.table_pane import TablePane
from tui.widgets.cell import LEAST, Cell, number, state, word
from tui.widgets.live_table import Column, LiveTable
from tui.widgets.sparkline import sparkline

TREND_BATCHES = 8
EMPTY = (
    "no live input yet. On the machine of a client's worker, `fccl learn` teaches the client's"
    " model a text, and `fccl try` asks the model and corrects it"
)

# 80 columns have room up to the loss on new items, 120 up to its trend.
COLUMNS = (
    Column("client", "client", 10),
    Column("verdict", "last", 10),
    Column("waiting", "waiting", 7, right=True),
    Column("learned", "learned", 7, right=True),
    Column("settled", "settled", 7, right=True),
    Column("rejected", "rejected", 8, right=True),
    Column("new", "new items", 13, 0, right=True),
    Column("anchors", "anchors", 13, 1, right=True),
    Column("forgetting", "forgot", 6, 2, right=True),
    Column("transfer", "backw.", 6, 2, right=True),
    Column("losses", "trend", TREND_BATCHES, 3),
    Column("age", "batch", 10, 4, right=True),
    Column("reason", "reason", 60, 5),
)


class InboxPane(TablePane):
    """Table with a row per client with live input; below, the whole row under the cursor."""

    COLUMNS = COLUMNS
    NOUN = "client"

    def compose(self) -> ComposeResult:
        yield from super().compose()
        yield Static(id="verdict", markup=False)

    def rows(self, snapshot: Snapshot) -> dict[str, dict[str, Cell]]:
        if snapshot.view is None:
            return {}
        return {
            row.client_id: _row(row, snapshot.inbox.get(row.client_id), snapshot.wall_time)
            for row in snapshot.view.inbox
        }

    def show(self, snapshot: Snapshot) -> None:
        super().show(snapshot)
        self._show_selected()

    def heading(self, snapshot: Snapshot, shown: str) -> str:
        rows = snapshot.view.inbox if snapshot.view is not None else ()
        return f"{add_up(rows).text()}\n{shown}" if rows else EMPTY

    @on(LiveTable.CursorMoved)
    def _on_cursor_moved(self, message: LiveTable.CursorMoved) -> None:
        message.stop()
        self._show_selected()

    def _show_selected(self) -> None:
        snapshot = self._snapshot
        rows = snapshot.view.inbox if snapshot is not None and snapshot.view is not None else ()
        row = next((row for row in rows if row.client_id == self.selected), None)
        text = (
            ""
            if row is None or snapshot is None
            else f"{row.client_id}: {describe_last_batch(row, snapshot.wall_time)}"
        )
        line = self.query_one("#verdict", Static)
        if str(line.content) != text:
            line.update(text)


def describe_last_batch(row: InboxFigures, now: float) -> str:
    """Return a client's last batch in a few words; `now` is in seconds since the epoch."""
    if not row.verdict:
        return "live input: nothing learned yet"
    text = f"last live input {row.verdict} {format_duration(max(0.0, now - row.at))} ago"
    text += f": {row.reason}" if row.reason else ""
    figures = [
        f"{name} {_format_change(before, after)}"
        for name, before, after in (
            ("loss on new items", row.new_before, row.new_after),
            ("on anchors", row.anchor_before, row.anchor_after),
        )
        if after is not None
    ]
    if row.forgetting is not None:
        figures.append(f"forgetting {row.forgetting:+.3f}")
    if row.backward_transfer is not None:
        figures.append(f"backward transfer {row.backward_transfer:+.3f}")
    return "\n".join([text, ", ".join(figures)]) if figures else text


def _format_change(before: float | None, after: float | None) -> str:
    if before is None and after is None:
        return MISSING
    return f"{format_number(before)} → {format_number(after)}"


def _row(row: InboxFigures, history: InboxHistory | None, now: float) -> dict[str, Cell]:
    losses = history.losses[-TREND_BATCHES:] if history is not None else ()
    curve = sparkline(losses, min(losses, default=0.0), max(losses, default=0.0))
    return {
        "client": word(row.client_id),
        "verdict": state(row.verdict) if row.verdict else word(None),
        "waiting": number(row.waiting),
        "learned": number(row.learned),
        "settled": number(row.settled),
        "rejected": number(row.rejected),
        "new": _change_cell(row.new_before, row.new_after),
        "anchors": _change_cell(row.anchor_before, row.anchor_after),
        "forgetting": _signed_cell(row.forgetting),
        "transfer": _signed_cell(row.backward_transfer),
        "losses": Cell(curve, losses[-1] if losses else LEAST),
        "age": Cell(f"{format_duration(max(0.0, now - row.at))} ago", row.at, right=True)
        if row.verdict
        else number(None),
        "reason": word(row.reason),
    }


def _change_cell(before: float | None, after: float | None) -> Cell:
    """Return a cell with a change, sorted by the later value."""
    return Cell(_format_change(before, after), LEAST if after is None else after, right=True)


def _signed_cell(value: float | None) -> Cell:
    if value is None:
        return number(None)
    return Cell(f"{value:+.3f}", value, right=True)

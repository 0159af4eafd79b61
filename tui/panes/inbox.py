"""The inbox pane: what clients learn from live input between rounds. Figures, never text."""

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

SPARK = 8  # batches
EMPTY = (
    "no live input yet. Beside a client's worker, `fccl learn` tells the client's model something,"
    " and `fccl try` asks and corrects it"
)

# At 80 columns up to the loss on new items, at 120 up to its trend.
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
    Column("losses", "trend", SPARK, 3),
    Column("age", "batch", 10, 4, right=True),
    Column("reason", "reason", 60, 5),
)


class InboxPane(TablePane):
    """One row per client with live input; below, all of the row under the cursor."""

    COLUMNS = COLUMNS
    NOUN = "client"

    def compose(self) -> ComposeResult:
        """The list, and what no table of 80 columns holds."""
        yield from super().compose()
        yield Static(id="verdict", markup=False)

    def rows(self, snapshot: Snapshot) -> dict[str, dict[str, Cell]]:
        """By client."""
        if snapshot.view is None:
            return {}
        return {
            row.client_id: _row(row, snapshot.inbox.get(row.client_id), snapshot.wall_time)
            for row in snapshot.view.inbox
        }

    def show(self, snapshot: Snapshot) -> None:
        """Show a snapshot on the screen."""
        super().show(snapshot)
        self._tell()

    def heading(self, snapshot: Snapshot, shown: str) -> str:
        """Totals come first."""
        rows = snapshot.view.inbox if snapshot.view is not None else ()
        return f"{add_up(rows).text()}\n{shown}" if rows else EMPTY

    @on(LiveTable.CursorMoved)
    def _moved(self, message: LiveTable.CursorMoved) -> None:
        """The cursor is on another client."""
        message.stop()
        self._tell()

    def _tell(self) -> None:
        snapshot = self._snapshot
        rows = snapshot.view.inbox if snapshot is not None and snapshot.view is not None else ()
        row = next((row for row in rows if row.client_id == self.selected), None)
        text = (
            ""
            if row is None or snapshot is None
            else f"{row.client_id}: {about(row, snapshot.wall_time)}"
        )
        line = self.query_one("#verdict", Static)
        if str(line.content) != text:
            line.update(text)


def about(row: InboxFigures, now: float) -> str:
    """A client's last batch, in a few sentences.

    Args:
        row: Of its inbox.
        now: Seconds since the epoch.
    """
    if not row.verdict:
        return "live input: nothing was learned yet"
    said = f"last live input {row.verdict} {format_duration(max(0.0, now - row.at))} ago"
    said += f": {row.reason}" if row.reason else ""
    known = [
        f"{name} {change(before, after)}"
        for name, before, after in (
            ("loss on new items", row.new_before, row.new_after),
            ("on anchors", row.anchor_before, row.anchor_after),
        )
        if after is not None
    ]
    if row.forgetting is not None:
        known.append(f"forgetting {row.forgetting:+.3f}")
    if row.backward_transfer is not None:
        known.append(f"backward transfer {row.backward_transfer:+.3f}")
    return "\n".join([said, ", ".join(known)]) if known else said


def change(before: float | None, after: float | None) -> str:
    """`0.931 → 0.412`."""
    if before is None and after is None:
        return MISSING
    return f"{format_number(before)} → {format_number(after)}"


def _row(row: InboxFigures, past: InboxHistory | None, now: float) -> dict[str, Cell]:
    losses = past.losses[-SPARK:] if past is not None else ()
    curve = sparkline(losses, min(losses, default=0.0), max(losses, default=0.0))
    return {
        "client": word(row.client_id),
        "verdict": state(row.verdict) if row.verdict else word(None),
        "waiting": number(row.waiting),
        "learned": number(row.learned),
        "settled": number(row.settled),
        "rejected": number(row.rejected),
        "new": _change(row.new_before, row.new_after),
        "anchors": _change(row.anchor_before, row.anchor_after),
        "forgetting": _signed(row.forgetting),
        "transfer": _signed(row.backward_transfer),
        "losses": Cell(curve, losses[-1] if losses else LEAST),
        "age": Cell(f"{format_duration(max(0.0, now - row.at))} ago", row.at, right=True)
        if row.verdict
        else number(None),
        "reason": word(row.reason),
    }


def _change(before: float | None, after: float | None) -> Cell:
    """Sorted by what it came to."""
    return Cell(change(before, after), LEAST if after is None else after, right=True)


def _signed(value: float | None) -> Cell:
    if value is None:
        return number(None)
    return Cell(f"{value:+.3f}", value, right=True)

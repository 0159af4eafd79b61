"""Aggregation pane: updates of each version with all factors, weights over time, rejections.

Shows what `coordinator/aggregation/` computed; docs/algorithms.md explains the columns.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Static

from common.protocol.feed import Event
from common.protocol.versions import UpdateSummary, VersionSummary
from common.store.view import FederationView
from common.text import one_line
from tui.data.events import recent_rejections, rejection_reason
from tui.data.reader import Snapshot
from tui.data.weights import count_staleness, histogram_bins
from tui.formatting import format_number
from tui.widgets.bar import histogram_bar
from tui.widgets.row_list import RowList
from tui.widgets.weight_map import WeightMap

VERSIONS_HEADER = "version  phase time     upd.   loss  holdout"
UPDATES_HEADER = "client         task      score weight  age  s(age) share  clip  coeff  loss"
BAR_WIDTH = 16
MAX_BINS = 6
MAX_REJECTIONS = 50


class AggregationPane(Vertical):
    """Versions, newest first; below, the updates of the version under the cursor."""

    DEFAULT_CSS = """
    AggregationPane > Horizontal { height: 2fr; }
    AggregationPane #agg-versions { width: 52; }
    AggregationPane #agg-side { width: 1fr; padding: 0 0 0 1; }
    AggregationPane #agg-side Static { height: auto; }
    AggregationPane > #agg-title { height: 1; background: $panel; }
    AggregationPane > #agg-updates { height: auto; min-height: 3; max-height: 30%; }
    AggregationPane > #agg-heat { height: 2fr; border-top: solid $panel; }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._versions: tuple[VersionSummary, ...] = ()
        self._events: tuple[Event, ...] = ()
        self._selected: VersionSummary | None = None
        self._phases: tuple[str, ...] = ()

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield RowList(header=VERSIONS_HEADER, empty="no version yet", id="agg-versions")
            with VerticalScroll(id="agg-side"):
                yield Static(id="agg-ages", markup=False)
                yield Static(id="agg-rejected", markup=False)
        yield Static(id="agg-title", markup=False)
        yield RowList(
            header=UPDATES_HEADER, empty="no update went into this version", id="agg-updates"
        )
        yield WeightMap(id="agg-heat")

    def on_mount(self) -> None:
        self._update_side()

    def show(self, snapshot: Snapshot) -> None:
        view = snapshot.view
        if view is None:
            return
        self._phases = view.info.phases
        if view.versions is not self._versions:
            self._update_versions(view)
        if view.events is not self._events:
            self._events = view.events
            self._update_side()

    def select(self, version: int) -> None:
        """Show the updates of a version, if it exists."""
        self.query_one("#agg-versions", RowList).select(version)

    @on(RowList.CursorMoved, "#agg-versions")
    @on(RowList.RowChosen, "#agg-versions")
    def _on_cursor_moved(self, message: RowList.CursorMoved) -> None:
        message.stop()
        self._update_selected()

    def _update_versions(self, view: FederationView) -> None:
        self._versions = view.versions
        newest = view.versions[::-1]
        self.query_one("#agg-versions", RowList).set_rows(
            [each.version for each in newest], lambda row: self._version_line(newest[row])
        )
        self._update_side()
        self._update_selected()

    def _update_selected(self) -> None:
        key = self.query_one("#agg-versions", RowList).key
        selected = next((each for each in self._versions if each.version == key), None)
        number = selected.version if selected else None
        self.query_one(WeightMap).set_versions(self._versions, number)
        if selected is self._selected or selected is None:
            return
        self._selected = selected
        updates = selected.updates
        rows = self.query_one("#agg-updates", RowList)
        rows.set_rows(
            [each.task_id for each in updates], lambda row: Text(_update_line(updates[row]))
        )
        rows.action_end(0)
        total = sum(update.coefficient for update in updates)
        summary = f"{len(updates)} updates, coefficients sum to {total:.3f}"
        title = f"version {number}: {summary if updates else 'the start'}"
        self.query_one("#agg-title", Static).update(title)

    def _update_side(self) -> None:
        bins = histogram_bins(count_staleness(self._versions), MAX_BINS)
        self.query_one("#agg-ages", Static).update(_staleness_histogram(bins))
        self.query_one("#agg-rejected", Static).update(_rejection_list(self._events))

    def _version_line(self, summary: VersionSummary) -> Text:
        phase = self._phases[summary.phase] if summary.phase < len(self._phases) else "-"
        clock = time.strftime("%H:%M:%S", time.localtime(summary.at))
        before = format_number(summary.holdout_before)
        after = format_number(summary.holdout_after)
        return Text(
            f"{summary.version:>7}  {phase[:5]:<5} {clock} {len(summary.updates):>4} "
            f"{format_number(summary.train_loss):>6}  {before} → {after}"
        )


def _update_line(update: UpdateSummary) -> str:
    name = Text(update.client_id)
    name.truncate(14, overflow="ellipsis", pad=True)
    return (
        f"{name.plain} {update.task_id[:9]:<9} {update.score:5.3g} {update.weight:6.3f}"
        f" {update.staleness:>4} {update.staleness_factor:7.3f} {update.participation_factor:5.2f}"
        f" {update.clip:5.2f} {update.coefficient:6.3f} {update.stats.avg_loss:5.3f}"
    )


def _staleness_histogram(bins: Sequence[tuple[str, int]]) -> Text:
    largest = max((count for _, count in bins), default=0)
    lines = [f"{age:>4} {histogram_bar(n, largest, BAR_WIDTH)} {n}" for age, n in bins]
    return _titled("updates by staleness", lines or ["none yet"])


def _rejection_list(events: Sequence[Event]) -> Text:
    rejections = recent_rejections(events)[:MAX_REJECTIONS]
    lines = [
        f"! {one_line(str(event.refs.get('client', '?')))}: {one_line(rejection_reason(event))}"
        for event in rejections
    ]
    return _titled(f"recently rejected: {len(rejections)}", lines or ["none"])


def _titled(title: str, lines: Sequence[str]) -> Text:
    return Text("\n").join([Text(title, style="bold"), *map(Text, lines)])

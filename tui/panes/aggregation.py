"""What each version is made of: its updates with every factor, weights over time, rejections.

After `coordinator/aggregation/contribution.py` and `staleness.py` on an update's way, through the summaries;
docs/algorithms.md explains the columns.
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
from common.protocol.fields import one_line
from common.protocol.versions import UpdateSummary, VersionSummary
from common.store.view import FederationView
from tui.data import history
from tui.data.reader import Snapshot
from tui.widgets.row_list import RowList
from tui.widgets.weight_map import WeightMap

VERSIONS = "version  phase time     upd.   loss  holdout"
UPDATES = "client         task      score weight  age  s(age) share  clip  coeff  loss"
BAR = 16  # columns of the longest bar
AGES = 6  # lines of the histogram
REJECTED = 50  # at most


class AggregationPane(Vertical):
    """Versions at the left, newest first; the one under the cursor is taken apart below."""

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
        self._shown: VersionSummary | None = None
        self._phases: tuple[str, ...] = ()

    def compose(self) -> ComposeResult:
        """Versions and what was refused; one version's updates; the map."""
        with Horizontal():
            yield RowList(header=VERSIONS, empty="no version yet", id="agg-versions")
            with VerticalScroll(id="agg-side"):
                yield Static(id="agg-ages", markup=False)
                yield Static(id="agg-rejected", markup=False)
        yield Static(id="agg-title", markup=False)
        yield RowList(header=UPDATES, empty="no update went into this version", id="agg-updates")
        yield WeightMap(id="agg-heat")

    def on_mount(self) -> None:
        """Say what there is before anything is known."""
        self._sides()

    def show(self, snapshot: Snapshot) -> None:
        """Take in what is new."""
        view = snapshot.view
        if view is None:
            return
        self._phases = view.info.phases
        if view.versions is not self._versions:
            self._take(view)
        if view.events is not self._events:
            self._events = view.events
            self._sides()

    def _take(self, view: FederationView) -> None:
        self._versions = view.versions
        newest = view.versions[::-1]
        self.query_one("#agg-versions", RowList).put(
            [each.version for each in newest], lambda row: self._version(newest[row])
        )
        self._sides()
        self._select()

    def select(self, version: int) -> None:
        """Show the updates of a version, if it is there."""
        self.query_one("#agg-versions", RowList).select(version)

    @on(RowList.CursorMoved, "#agg-versions")
    @on(RowList.RowChosen, "#agg-versions")
    def _moved(self, message: RowList.CursorMoved) -> None:
        message.stop()
        self._select()

    def _select(self) -> None:
        key = self.query_one("#agg-versions", RowList).key
        chosen = next((each for each in self._versions if each.version == key), None)
        self.query_one(WeightMap).put(self._versions, chosen.version if chosen else None)
        if chosen is self._shown or chosen is None:
            return
        self._shown = chosen
        updates = chosen.updates
        rows = self.query_one("#agg-updates", RowList)
        rows.put([each.task_id for each in updates], lambda row: Text(_update(updates[row])))
        rows.action_end(0)
        total = sum(update.coefficient for update in updates)
        made = f"{len(updates)} updates, coefficients sum to {total:.3f}"
        title = f"version {chosen.version}: {made if updates else 'the start'}"
        self.query_one("#agg-title", Static).update(title)

    def _sides(self) -> None:
        ages = history.bins(history.histogram(self._versions), AGES)
        self.query_one("#agg-ages", Static).update(_ages(ages))
        self.query_one("#agg-rejected", Static).update(_rejected(self._events))

    def _version(self, summary: VersionSummary) -> Text:
        phase = self._phases[summary.phase] if summary.phase < len(self._phases) else "-"
        clock = time.strftime("%H:%M:%S", time.localtime(summary.at))
        before, after = _loss(summary.holdout_before), _loss(summary.holdout_after)
        return Text(
            f"{summary.version:>7}  {phase[:5]:<5} {clock} {len(summary.updates):>4} "
            f"{_loss(summary.train_loss):>6}  {before} → {after}"
        )


def _update(update: UpdateSummary) -> str:
    name = Text(update.client_id)
    name.truncate(14, overflow="ellipsis", pad=True)
    return (
        f"{name.plain} {update.task_id[:9]:<9} {update.score:5.3g} {update.weight:6.3f}"
        f" {update.staleness:>4} {update.staleness_factor:7.3f} {update.participation_factor:5.2f}"
        f" {update.clip:5.2f} {update.coefficient:6.3f} {update.stats.avg_loss:5.3f}"
    )


def _ages(ages: Sequence[tuple[str, int]]) -> Text:
    largest = max((count for _, count in ages), default=0)
    lines = [f"{age:>4} {history.bar(n, largest, BAR)} {n}" for age, n in ages]
    return _titled("updates by staleness", lines or ["none yet"])


def _rejected(events: Sequence[Event]) -> Text:
    rejected = history.rejections(events)[:REJECTED]
    lines = [
        f"! {one_line(str(event.refs.get('client', '?')))}: {history.reason(event)}"
        for event in rejected
    ]
    return _titled(f"rejected: {len(rejected)} of late", lines or ["none"])


def _titled(title: str, lines: Sequence[str]) -> Text:
    return Text("\n").join([Text(title, style="bold"), *map(Text, lines)])


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

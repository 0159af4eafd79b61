"""Queues pane: messages that wait in the broker by site, their rates, and the versions.

The coordinator publishes the depths; rates are computed here, from one view to the next.
"""

from __future__ import annotations

import time

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from common.byte_sizes import format_bytes
from common.protocol.versions import VersionSummary
from common.store.view import FederationView, QueueRow
from tui.data.queues import (
    QueueSample,
    SiteDepths,
    add_sample,
    dead_letter_queue,
    queue_growth,
    queues_by_site,
    take_sample,
)
from tui.data.reader import Snapshot
from tui.formatting import MISSING, format_number
from tui.widgets.row_list import RowList

SITE_GROUPS = "               tasks                        updates"
SITE_HEADER = "site           waiting consum.  +/s issued/s waiting consum.  +/s applied/s"
VERSIONS_HEADER = "version  phase time         size  digest      train  holdout        updates"


class QueuesPane(Vertical):
    """Sites above, versions below; between them the number of dead letters."""

    DEFAULT_CSS = """
    QueuesPane > #queues-head { height: auto; }
    QueuesPane > #queues-sites { height: 1fr; }
    QueuesPane > #queues-dead { height: auto; }
    QueuesPane > #queues-dead.some { color: $text-warning; }
    QueuesPane > #queues-versions { height: 1fr; border-top: solid $panel; }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._run = ""
        self._samples: tuple[QueueSample, ...] = ()
        self._versions: tuple[VersionSummary, ...] = ()

    def compose(self) -> ComposeResult:
        yield Static(Text(SITE_GROUPS, style="bold"), id="queues-head")
        yield RowList(header=SITE_HEADER, empty="no queues known", id="queues-sites")
        yield Static(id="queues-dead", markup=False)
        yield RowList(header=VERSIONS_HEADER, empty="no version yet", id="queues-versions")

    def show(self, snapshot: Snapshot) -> None:
        view = snapshot.view
        if view is None:
            return
        if view.info.run != self._run:  # another run of the name: its counts start at zero
            self._run, self._samples = view.info.run, ()
        sample = take_sample(snapshot.read_at, view.queues, view.clients)
        self._samples = add_sample(self._samples, sample)
        sites = queues_by_site(view.queues, self._samples)
        self.query_one("#queues-sites", RowList).set_rows(
            [each.site for each in sites], lambda row: _site_line(sites[row])
        )
        self._update_dead_letters(dead_letter_queue(view.queues))
        if view.versions is not self._versions:
            self._update_versions(view)

    def _update_dead_letters(self, queue: QueueRow | None) -> None:
        line = self.query_one("#queues-dead", Static)
        line.set_class(queue is not None and queue.messages > 0, "some")
        if queue is None:
            line.update("dead letters: unknown")
            return
        growth = _format_rate(queue_growth(self._samples, queue.queue), signed=True)
        mark = "! " if queue.messages else ""
        line.update(f"{mark}dead letters: {queue.messages}, {growth}/s")

    def _update_versions(self, view: FederationView) -> None:
        self._versions = view.versions
        newest, phases = view.versions[::-1], view.info.phases
        self.query_one("#queues-versions", RowList).set_rows(
            [each.version for each in newest], lambda row: _version_line(newest[row], phases)
        )


def _site_line(site: SiteDepths) -> Text:
    tasks, updates = _queue_columns(site.tasks), _queue_columns(site.updates)
    name = Text(site.site)
    name.truncate(14, overflow="ellipsis", pad=True)
    tasks_growth = _format_rate(site.tasks_growth, signed=True)
    updates_growth = _format_rate(site.updates_growth, signed=True)
    return Text(
        f"{name.plain} {tasks} {tasks_growth:>5} {_format_rate(site.issued):>8}"
        f" {updates} {updates_growth:>5} {_format_rate(site.applied):>9}"
    )


def _queue_columns(queue: QueueRow | None) -> str:
    if queue is None:
        return f"{'-':>7} {'-':>7}"
    return f"{queue.messages:>7} {queue.consumers:>7}"


def _version_line(summary: VersionSummary, phases: tuple[str, ...]) -> Text:
    phase = phases[summary.phase] if summary.phase < len(phases) else "-"
    clock = time.strftime("%H:%M:%S", time.localtime(summary.at))
    holdout = f"{format_number(summary.holdout_before)} → {format_number(summary.holdout_after)}"
    return Text(
        f"{summary.version:>7}  {phase[:5]:<5} {clock} {format_bytes(summary.nbytes):>9}"
        f"  {summary.sha256[:10]}  {format_number(summary.train_loss):>5}  {holdout:<14} "
        f"{len(summary.updates):>6}"
    )


def _format_rate(value: float | None, signed: bool = False) -> str:
    if value is None:
        return MISSING
    return f"{value:+.1f}" if signed else f"{value:.2f}"

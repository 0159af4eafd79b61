"""What waits in RabbitMQ, by site, how fast it moves, and the adapters that are handed out.

The depths come from `broker` through `coordinator/publish/store_publisher.py`; rates are taken here, from one look
to the next, because nobody else needs them.
"""

from __future__ import annotations

import time

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from common.protocol.versions import VersionSummary
from common.store.view import FederationView, QueueRow
from tui.data import history
from tui.data.history import SiteQueues
from tui.data.reader import Snapshot
from tui.widgets.row_list import RowList

SITES = (
    "               tasks                        updates",
    "site           waiting takers  +/s issued/s waiting takers  +/s applied/s",
)
VERSIONS = "version  phase time         size  digest      train  holdout        updates"


class QueuesPane(Vertical):
    """Sites above, versions below."""

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
        self._samples: tuple[history.QueueSample, ...] = ()
        self._versions: tuple[VersionSummary, ...] = ()

    def compose(self) -> ComposeResult:
        """Groups of columns; one line a site; the dead letters; one line a version."""
        yield Static(Text(SITES[0], style="bold"), id="queues-head")
        yield RowList(header=SITES[1], empty="no queue is known", id="queues-sites")
        yield Static(id="queues-dead", markup=False)
        yield RowList(header=VERSIONS, empty="no version yet", id="queues-versions")

    def show(self, snapshot: Snapshot) -> None:
        """Take in what is new."""
        view = snapshot.view
        if view is None:
            return
        if view.info.run != self._run:  # its sites count from zero
            self._run, self._samples = view.info.run, ()
        sample = history.sample(snapshot.read_at, view.queues, view.clients)
        self._samples = history.remember(self._samples, sample)
        sites = history.sites(view.queues, self._samples)
        self.query_one("#queues-sites", RowList).put(
            [each.site for each in sites], lambda row: _site(sites[row])
        )
        self._dead(history.dead(view.queues))
        if view.versions is not self._versions:
            self._take(view)

    def _dead(self, queue: QueueRow | None) -> None:
        line = self.query_one("#queues-dead", Static)
        line.set_class(queue is not None and queue.messages > 0, "some")
        if queue is None:
            line.update("dead letters: unknown")
            return
        growth = _rate(history.growth(self._samples, queue.queue), signed=True)
        mark = "! " if queue.messages else ""
        line.update(f"{mark}dead letters: {queue.messages}, {growth}/s")

    def _take(self, view: FederationView) -> None:
        self._versions = view.versions
        newest, phases = view.versions[::-1], view.info.phases
        self.query_one("#queues-versions", RowList).put(
            [each.version for each in newest], lambda row: _version(newest[row], phases)
        )


def _site(site: SiteQueues) -> Text:
    tasks, updates = _queue(site.tasks), _queue(site.updates)
    name = Text(site.site)
    name.truncate(14, overflow="ellipsis", pad=True)
    taken = f"{tasks} {_rate(site.tasks_growth, signed=True):>5} {_rate(site.issued):>8}"
    given = f"{updates} {_rate(site.updates_growth, signed=True):>5} {_rate(site.applied):>9}"
    return Text(f"{name.plain} {taken} {given}")


def _queue(queue: QueueRow | None) -> str:
    if queue is None:
        return f"{'-':>7} {'-':>6}"
    return f"{queue.messages:>7} {queue.consumers:>6}"


def _version(summary: VersionSummary, phases: tuple[str, ...]) -> Text:
    phase = phases[summary.phase] if summary.phase < len(phases) else "-"
    clock = time.strftime("%H:%M:%S", time.localtime(summary.at))
    holdout = f"{_loss(summary.holdout_before)} → {_loss(summary.holdout_after)}"
    return Text(
        f"{summary.version:>7}  {phase[:5]:<5} {clock} {history.size(summary.nbytes):>9}"
        f"  {summary.sha256[:10]}  {_loss(summary.train_loss):>5}  {holdout:<14} "
        f"{len(summary.updates):>6}"
    )


def _rate(value: float | None, signed: bool = False) -> str:
    """Two digits are enough, and `-` stands for what is not known yet."""
    if value is None:
        return "-"
    return f"{value:+.1f}" if signed else f"{value:.2f}"


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

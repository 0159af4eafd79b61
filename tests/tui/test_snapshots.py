"""What the screens look like. Clock, time zone and feed stand still; `pictures.py` compares."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from common.protocol.feed import Event
from common.protocol.heartbeat import Heartbeat
from common.run_directory import recorded_run
from common.store.inbox_totals import InboxHistory
from tests.support.tui.live_app import heartbeat
from tests.support.tui.recordings import record
from tests.support.tui.snapshots import compare
from tests.support.tui.views import Host, client, event, look, queue, sample
from tests.tui.test_aggregation import REJECTED, history
from tests.tui.test_inbox import ACCEPTED, Styled
from tests.tui.test_inbox import REJECTED as FORGETS
from tui.app import MonitorApp
from tui.data.reader import Snapshot
from tui.data.replay import Replay
from tui.panes.aggregation import AggregationPane
from tui.panes.inbox import InboxPane
from tui.panes.log import LogPane
from tui.panes.queues import QueuesPane
from tui.panes.samples import SamplesPane
from tui.replay_app import ReplayApp

NARROW, MIDDLE, WIDE = (80, 24), (120, 36), (200, 50)
NOW = 2000.0


@pytest.fixture(autouse=True)
def standing_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class Still:
    """A feed that always sees the same, as long ago."""

    name = "demo"

    def __init__(self, seen: Snapshot, age_s: float = 0.0) -> None:
        self._look, self._age = seen, age_s

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def latest(self) -> Snapshot:
        at = time.monotonic() - self._age
        return replace(self._look, read_at=at, changed_at=at, wall_time=NOW)


EVENTS: list[Event] = [
    event("t1 to client_0 from version 11", kind="issued", at=1700.0, client="client_0"),
    *REJECTED,
    event("version 12: 2 updates", kind="version", at=1720.0, version=12),
    event(
        "client_2 is quarantined: 3 refusals in a row", "error", "quarantined", client="client_2"
    ),
]
SAID = "One mouse becomes many mices, as one box does"
SAMPLES = [
    *(
        sample(v, "What are the plurals of box and mouse?", answer=SAID[: 4 * v])
        for v in (0, 4, 8, 12)
    ),
    sample(0, "Is a crow an animal?", kind="va"),
]


def run(**changed: Any) -> Snapshot:
    """A run in its twelfth version."""
    rows = [client(f"client_{i}", issued=9, participation=8, weight=0.25 * i) for i in range(4)]
    worker = Heartbeat(
        worker_id="w1", site="local", state="training", task_id="t1", client_id="client_0",
        progress=0.4, tokens_per_s=5200.0, device="cpu", sent_at=NOW - 2,
    )  # fmt: skip
    return look(
        **{"name": "demo", "version": 12, "total_versions": 24, "updated_at": NOW - 1, **changed},
        clients=rows,
        workers=[worker],
        queues=[queue("tasks.local", 2, 4), queue("updates.local", 0, 1), queue("dead", 1, 0)],
        versions=history(12),
        events=EVENTS,
        samples=SAMPLES,
    )


LOST = "the store at 127.0.0.1:6379 does not answer (ConnectionError)"
STATES: dict[str, tuple[Snapshot, tuple[int, int]]] = {
    "connecting": (Snapshot(), NARROW),
    "waiting": (Snapshot("waiting"), NARROW),
    "live-narrow": (run(), NARROW),
    "live": (run(), MIDDLE),
    "live-wide": (run(), WIDE),
    "lost": (replace(run(), state="lost", detail=LOST), MIDDLE),
    "finished": (run(status="finished", detail="the plan is complete", version=24), MIDDLE),
}


@pytest.mark.parametrize("state", STATES)
def test_the_screen_of_a_state(state: str, tmp_path: Path) -> None:
    seen, size = STATES[state]
    feed = Still(seen, age_s=7.2 if state == "lost" else 0.0)
    compare(MonitorApp(feed), state, size, tmp_path)


def test_a_replay(tmp_path: Path) -> None:
    source = Replay(recorded_run.read_run(record(tmp_path / "r")), monotonic=lambda: 0.0)
    compare(ReplayApp(source), "replay", NARROW, tmp_path)


@pytest.mark.parametrize("pane", [AggregationPane, QueuesPane, LogPane, SamplesPane])
@pytest.mark.parametrize("size", [NARROW, MIDDLE], ids=["narrow", "middle"])
def test_a_pane(pane: Any, size: tuple[int, int], tmp_path: Path) -> None:
    host = Host(pane())

    async def script(pilot: Pilot[Any]) -> None:
        for second in (1.0, 3.0):  # two looks: rates need them
            host.pane.show(replace(run(), read_at=second))
            await pilot.pause()

    name = (
        f"{pane.__name__.removesuffix('Pane').lower()}-{'narrow' if size == NARROW else 'middle'}"
    )
    compare(host, name, size, tmp_path, script)


def test_the_inbox(tmp_path: Path) -> None:
    workers = [heartbeat("w1", sent_at=NOW, inbox=(ACCEPTED, FORGETS))]
    past = {"client_0": InboxHistory(1950.0, (0.93, 0.7, 0.72, 0.5, 0.41))}
    host = Styled(InboxPane())

    async def script(pilot: Pilot[Any]) -> None:
        host.pane.show(replace(look(workers=workers), wall_time=NOW, inbox=past))
        await pilot.pause()

    compare(host, "inbox", MIDDLE, tmp_path, script)

"""Screens compared with stored pictures. Clock, time zone and source stand still."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from common.protocol.feed import Event
from common.run_directory import recorded_run
from common.store.inbox_totals import InboxHistory
from tests.support.tui.builders import (
    ACCEPTED_BATCH,
    REJECTED_BATCH,
    REJECTIONS,
    client,
    event,
    heartbeat,
    queue,
    sample,
    snapshot,
    version_history,
)
from tests.support.tui.pilot import PaneApp, StyledPaneApp
from tests.support.tui.recordings import record
from tests.support.tui.snapshots import compare
from tests.tui.test_evaluation import evaluated_run
from tui.app import MonitorApp
from tui.data.reader import Snapshot
from tui.data.replay import Replay
from tui.panes.aggregation import AggregationPane
from tui.panes.evaluation import EvaluationPane
from tui.panes.inbox import InboxPane
from tui.panes.log import LogPane
from tui.panes.queues import QueuesPane
from tui.panes.samples import SamplesPane
from tui.replay_app import ReplayApp

NARROW, MIDDLE, WIDE = (80, 24), (120, 36), (200, 50)
NOW = 2000.0


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class FixedSource:
    """Source whose latest snapshot is always the same, and always of the same age."""

    name = "demo"

    def __init__(self, snapshot: Snapshot, age_s: float = 0.0) -> None:
        self._snapshot, self._age_s = snapshot, age_s

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def latest(self) -> Snapshot:
        at = time.monotonic() - self._age_s
        return replace(self._snapshot, read_at=at, changed_at=at, wall_time=NOW)


EVENTS: list[Event] = [
    event("t1 to client_0 from version 11", kind="issued", at=1700.0, client="client_0"),
    *REJECTIONS,
    event("version 12: 2 updates", kind="version", at=1720.0, version=12),
    event(
        "client_2 is quarantined: 3 refusals in a row", "error", "quarantined", client="client_2"
    ),
]
ANSWER = "One mouse becomes many mices, as one box does"
SAMPLES = [
    *(
        sample(v, "What are the plurals of box and mouse?", answer=ANSWER[: 4 * v])
        for v in (0, 4, 8, 12)
    ),
    sample(0, "Is a crow an animal?", kind="va"),
]


def run_snapshot(**changed: Any) -> Snapshot:
    """Return a run in its twelfth version."""
    rows = [client(f"client_{i}", issued=9, participation=8, weight=0.25 * i) for i in range(4)]
    worker = heartbeat(
        "w1",
        clients=(),
        state="training",
        task_id="t1",
        client_id="client_0",
        progress=0.4,
        tokens_per_s=5200.0,
        device="cpu",
        sent_at=NOW - 2,
    )
    return snapshot(
        **{"name": "demo", "version": 12, "total_versions": 24, "updated_at": NOW - 1, **changed},
        clients=rows,
        workers=[worker],
        queues=[queue("tasks.local", 2, 4), queue("updates.local", 0, 1), queue("dead", 1, 0)],
        versions=version_history(12),
        events=EVENTS,
        samples=SAMPLES,
    )


LOST = "the store at 127.0.0.1:6379 does not answer (ConnectionError)"
STATES: dict[str, tuple[Snapshot, tuple[int, int]]] = {
    "connecting": (Snapshot(), NARROW),
    "waiting": (Snapshot("waiting"), NARROW),
    "live-narrow": (run_snapshot(), NARROW),
    "live": (run_snapshot(), MIDDLE),
    "live-wide": (run_snapshot(), WIDE),
    "lost": (replace(run_snapshot(), state="lost", detail=LOST), MIDDLE),
    "lost-narrow": (replace(run_snapshot(), state="lost", detail=LOST), NARROW),
    "finished": (
        run_snapshot(status="finished", detail="the plan is complete", version=24),
        MIDDLE,
    ),
}


@pytest.mark.parametrize("state", STATES)
def test_the_app_looks_the_same_in_each_state(state: str, tmp_path: Path) -> None:
    shown, size = STATES[state]
    source = FixedSource(shown, age_s=7.2 if state.startswith("lost") else 0.0)
    compare(MonitorApp(source), state, size, tmp_path)


def test_a_replay_looks_the_same(tmp_path: Path) -> None:
    source = Replay(recorded_run.read_run(record(tmp_path / "r")), monotonic=lambda: 0.0)
    compare(ReplayApp(source), "replay", NARROW, tmp_path)


@pytest.mark.parametrize("pane", [AggregationPane, QueuesPane, LogPane, SamplesPane])
@pytest.mark.parametrize("size", [NARROW, MIDDLE], ids=["narrow", "middle"])
def test_a_pane_looks_the_same(pane: Any, size: tuple[int, int], tmp_path: Path) -> None:
    app = PaneApp(pane())

    async def script(pilot: Pilot[Any]) -> None:
        for second in (1.0, 3.0):  # rates need two snapshots
            app.pane.show(replace(run_snapshot(), read_at=second))
            await pilot.pause()

    name = pane.__name__.removesuffix("Pane").lower()
    compare(app, f"{name}-{'narrow' if size == NARROW else 'middle'}", size, tmp_path, script)


def test_the_inbox_looks_the_same(tmp_path: Path) -> None:
    workers = [heartbeat("w1", sent_at=NOW, inbox=(ACCEPTED_BATCH, REJECTED_BATCH))]
    history = {"client_0": InboxHistory(1950.0, (0.93, 0.7, 0.72, 0.5, 0.41))}
    app = StyledPaneApp(InboxPane())

    async def script(pilot: Pilot[Any]) -> None:
        app.pane.show(replace(snapshot(workers=workers), wall_time=NOW, inbox=history))
        await pilot.pause()

    compare(app, "inbox", MIDDLE, tmp_path, script)


@pytest.mark.parametrize("size", [NARROW, MIDDLE], ids=["narrow", "middle"])
def test_evaluations_look_the_same(size: tuple[int, int], tmp_path: Path) -> None:
    app = StyledPaneApp(EvaluationPane())

    async def script(pilot: Pilot[Any]) -> None:
        app.pane.show(evaluated_run())
        await pilot.pause()

    compare(app, f"evaluation-{'narrow' if size == NARROW else 'middle'}", size, tmp_path, script)

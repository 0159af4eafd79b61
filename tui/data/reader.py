"""Thread that reads a run from the store twice a second, so that no screen waits for Redis.

Reads what `coordinator/publish/store_publisher.py` writes; `tui/app.py` shows the latest snapshot.
When the store is lost, the last view stays, with its age, and the reader tries again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from common.errors import StoreError
from common.store.inbox_totals import InboxHistory, extend_histories
from common.store.store import Store
from common.store.view import FederationView, RunNotFound, ViewReader

PERIOD_S = 0.5

SourceState = Literal[
    "connecting",  # before the first answer
    "waiting",  # the store knows no run of this name
    "live",
    "lost",  # the store does not answer
    "replay",  # a recorded run (`tui/data/replay.py`)
]


@dataclass(frozen=True)
class Snapshot:
    """State of a run at one moment.

    Attributes:
        changed_at: When the coordinator last changed the view, on the monotonic clock of this
            machine, because the clocks of two machines may differ.
        wall_time: When the view was read, in seconds since the epoch, or the time that a replay
            shows. Ages on the screen are relative to it.
    """

    state: SourceState = "connecting"
    view: FederationView | None = None  # the last one that was read, even when the store is lost
    read_at: float = 0.0  # on the monotonic clock
    changed_at: float = 0.0
    detail: str = ""  # error of the store; in a replay, its position
    wall_time: float = 0.0
    inbox: Mapping[str, InboxHistory] = field(default_factory=dict)  # by client


class SnapshotSource(Protocol):
    """Source of the snapshots that a screen shows: a live or a recorded run. No method waits."""

    name: str

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def latest(self) -> Snapshot:
        """Return the latest snapshot."""


class ReaderThread:
    """Source of the snapshots of a live run. `latest` may be called from any thread."""

    def __init__(self, connect: Callable[[], Store], name: str) -> None:
        """Create a reader of the run of this name; `start` starts its thread.

        `connect` opens the store or raises `StoreError`; it is called again after every loss.
        """
        self._connect = connect
        self.name = name
        self._snapshot = Snapshot()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-reader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop reading, without waiting for an answer that is on its way."""
        self._stopped.set()

    def latest(self) -> Snapshot:
        return self._snapshot

    def _run(self) -> None:
        store: Store | None = None
        reader = ViewReader(self.name)
        while not self._stopped.is_set():
            try:
                store = store or self._connect()
                self._update(reader.read(store))
            except RunNotFound:
                self._snapshot = replace(self._snapshot, state="waiting", detail="")
            except StoreError as error:
                store = None
                self._snapshot = replace(self._snapshot, state="lost", detail=error.what)
            self._stopped.wait(PERIOD_S)

    def _update(self, view: FederationView) -> None:
        now, previous = time.monotonic(), self._snapshot
        same = previous.view is not None and previous.view.info == view.info
        same_run = previous.view is not None and previous.view.info.run == view.info.run
        self._snapshot = Snapshot(
            "live",
            view,
            read_at=now,
            changed_at=previous.changed_at if same else now,
            wall_time=time.time(),
            inbox=extend_histories(previous.inbox if same_run else {}, view.inbox),
        )

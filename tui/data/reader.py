"""Reads a run again and again, in a thread of its own, so that no screen ever waits for Redis.

After `coordinator/publish/store_publisher.py` on an update's way; `tui/app.py` shows what the thread last saw. A
store that is lost leaves the last view standing, with its age, and is tried again.
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

ReaderState = Literal["connecting", "waiting", "live", "lost", "replay"]


@dataclass(frozen=True)
class Snapshot:
    """What is known of a run.

    Attributes:
        state: `connecting` before the first answer, `waiting` for a run of that name, `live`, or
            `lost`: the store does not answer; `replay` of a recording (`tui/data/replay.py`).
        view: The last one read; stays when the store is lost.
        seen: When it was read, on the monotonic clock.
        moved: When the coordinator last changed it, likewise. Seen from here: the clocks of two
            machines may differ.
        detail: What the store said instead of a view; of a replay, where it stands.
        clock: When it was read, seconds since the epoch, or the time that a replay shows: ages of
            what is shown end here.
        inbox: By client, what was seen of the batches that it learned, on whatever pane.
    """

    state: ReaderState = "connecting"
    view: FederationView | None = None
    read_at: float = 0.0
    changed_at: float = 0.0
    detail: str = ""
    wall_time: float = 0.0
    inbox: Mapping[str, InboxHistory] = field(default_factory=dict)


class SnapshotSource(Protocol):
    """Where the screen gets its looks from: a live run, or a recorded one."""

    name: str

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End, without waiting."""

    def latest(self) -> Snapshot:
        """What is known now; at once."""


class ReaderThread:
    """The reader. `look` returns at once, from any thread."""

    def __init__(self, connect: Callable[[], Store], name: str) -> None:
        """Nothing is read before `start`.

        Args:
            connect: Opens the store, or raises `StoreError`; called again after every loss.
            name: Of the run.
        """
        self._connect = connect
        self.name = name
        self._snapshot = Snapshot()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="feed", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Read no more. Does not wait for an answer that is still to come."""
        self._stopped.set()

    def latest(self) -> Snapshot:
        """What is known now."""
        return self._snapshot

    def _work(self) -> None:
        store: Store | None = None
        reader = ViewReader(self.name)
        while not self._stopped.is_set():
            try:
                store = store or self._connect()
                self._saw(reader.read(store))
            except RunNotFound:
                self._snapshot = replace(self._snapshot, state="waiting", detail="")
            except StoreError as error:
                store = None
                self._snapshot = replace(self._snapshot, state="lost", detail=error.what)
            self._stopped.wait(PERIOD_S)

    def _saw(self, view: FederationView) -> None:
        now, before = time.monotonic(), self._snapshot
        same = before.view is not None and before.view.info == view.info
        moved = before.changed_at if same else now
        known = before.view is not None and before.view.info.run == view.info.run
        past = extend_histories(before.inbox if known else {}, view.inbox)
        self._snapshot = Snapshot(
            "live", view, read_at=now, changed_at=moved, wall_time=time.time(), inbox=past
        )

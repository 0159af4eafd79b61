"""The worker's sign of life: a thread of its own, so that training never delays it.

It also looks, with the same rhythm, whether the task at hand is still wanted: a receipt means that
it is settled, a version too far ahead that its update would be rejected as stale.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from common.clock import Clock
from common.errors import StoreError
from common.protocol.heartbeat import Heartbeat, LocalEvent
from common.protocol.tasks import TrainTask
from common.store.store import Store

BEAT_S = 5.0  # a third of the heartbeat's time to live


class HeartbeatSender:
    """Writes heartbeats of one worker on one run until it is stopped."""

    def __init__(
        self,
        store: Store,
        run: str,
        first: Heartbeat,
        clock: Clock,
        beaten: Callable[[bool], None] = lambda arrived: None,
    ) -> None:
        """Start beating.

        Args:
            store: A connection of its own, with short time-outs.
            run: The run's id.
            first: The heartbeat to begin with; `update` changes its fields.
            clock: Seconds since the epoch.
            beaten: Told whether each heartbeat has arrived.
        """
        self._store, self._run, self._clock = store, run, clock
        self._beaten = beaten
        self._lock = threading.Lock()
        self._heartbeat = first
        self._events: deque[LocalEvent] = deque(maxlen=20)
        self._task: TrainTask | None = None
        self._max_staleness = 0
        self._unwanted = ""
        self._due = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def update(self, *, now: bool = False, **fields: Any) -> None:
        """Change fields of the next heartbeat; `now` sends it at once."""
        with self._lock:
            self._heartbeat = self._heartbeat.model_copy(update=fields)
        if now:
            self._due.set()

    def begin(self, task: TrainTask, max_staleness: int) -> None:
        """A task is being worked on: its lease is renewed by every beat from now on."""
        with self._lock:
            self._task, self._max_staleness, self._unwanted = task, max_staleness, ""
        self.update(
            now=True,
            task_id=task.task_id,
            client_id=task.client_id,
            base_version=task.base_version,
            progress=0.0,
        )

    def end(self) -> None:
        """The task is done with."""
        with self._lock:
            self._task = None
        self.update(now=True, state="waiting", task_id=None, client_id=None, progress=0.0)

    def heartbeat(self) -> Heartbeat:
        """What the next one will say."""
        with self._lock:
            return self._heartbeat

    def unwanted(self) -> str:
        """Why the task at hand need not be finished; empty while it should be."""
        with self._lock:
            return self._unwanted

    def note(self, kind: str, text: str) -> None:
        """Tell a local event with the heartbeats. Never user text."""
        with self._lock:
            self._events.append(LocalEvent(at=self._clock(), kind=kind, text=text[:500]))

    def stop(self) -> None:
        """Stop beating, and say goodbye."""
        self._stopped.set()
        self._due.set()
        self._thread.join(timeout=10)
        _try(
            lambda: self._store.remove_heartbeat(
                self._run, self._heartbeat.site, self._heartbeat.worker_id
            )
        )

    def _beat(self) -> None:
        while not self._stopped.is_set():
            with self._lock:
                events = tuple(self._events)
                fields = {"sent_at": self._clock(), "events": events}
                heartbeat = self._heartbeat.model_copy(update=fields)
            beat = partial(self._store.put_heartbeat, self._run, heartbeat)
            self._beaten(_try(beat))
            _try(self._look)
            self._due.wait(BEAT_S)
            self._due.clear()

    def _look(self) -> None:
        with self._lock:
            task, limit = self._task, self._max_staleness
        if task is None:
            return
        version = self._store.get_version(self._run) or 0
        receipt = self._store.get_receipt(self._run, self._heartbeat.site, task.task_id)
        reason = ""
        if receipt is not None:
            reason = f"settled already: {receipt.reason or receipt.state}"
        elif version - task.base_version > limit:
            reason = f"version {version} is out: staleness over {limit}"
        with self._lock:
            if self._task is task:
                self._unwanted = reason


def _try(call: Callable[[], None]) -> bool:
    """Without the store a worker goes on; the next beat tries again."""
    try:
        call()
    except StoreError:
        return False
    return True

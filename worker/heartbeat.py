"""Heartbeats of a worker, sent from a thread of their own so that training never delays them.

The thread also checks, at the same interval, whether the current task is still wanted. It is not
once it has a receipt, or once the newest version is so far ahead that the coordinator would reject
the update as stale. An evaluation is wanted until it has a receipt.
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
from worker.events import WorkerEventKind
from worker.site_task import SiteTask, version_of
from worker.spool import PendingUpdate

INTERVAL_S = 5.0  # a third of the heartbeat's time to live
MAX_EVENTS = 20  # the newest ones travel with each heartbeat


class HeartbeatSender:
    """Sender of one worker's heartbeats on one run, from `start` to `close`.

    `first` is the heartbeat to begin with; `update` changes its fields. `on_heartbeat` is called
    after each one with whether it has arrived. The store is a connection of its own, with short
    time-outs. `public_text` removes what is only this site's business from the text of an event.
    """

    def __init__(
        self,
        store: Store,
        run: str,
        first: Heartbeat,
        clock: Clock,
        on_heartbeat: Callable[[bool], None] = lambda arrived: None,
        public_text: Callable[[str], str] = str,
    ) -> None:
        self._store, self._run, self._clock = store, run, clock
        self._on_heartbeat = on_heartbeat
        self._public_text = public_text
        self._lock = threading.Lock()
        self._heartbeat = first
        self._events: deque[LocalEvent] = deque(maxlen=MAX_EVENTS)
        self._task: SiteTask | None = None
        self._publishing: PendingUpdate | None = None
        self._max_staleness = 0
        self._unwanted_reason = ""
        self._due = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._send_all, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def update(self, *, now: bool = False, **fields: Any) -> None:
        """Change fields of the next heartbeat; `now` sends it immediately."""
        with self._lock:
            self._heartbeat = self._heartbeat.model_copy(update=fields)
        if now:
            self._due.set()

    def start_task(self, task: SiteTask, max_staleness: int) -> None:
        """Name the task in every heartbeat from now on, which renews its lease."""
        with self._lock:
            self._task, self._max_staleness, self._unwanted_reason = task, max_staleness, ""
        self.update(
            now=True,
            task_id=task.task_id,
            client_id=task.client_id,
            base_version=version_of(task),
            progress=0.0,
        )

    def end_task(self, rests_until: float | None = None) -> None:
        """Name no task any more; `rests_until` as in `Heartbeat`."""
        with self._lock:
            self._task = None
        state = "waiting" if rests_until is None else "resting"
        self.update(
            now=True, state=state, rests_until=rests_until, task_id=None, client_id=None,
            progress=0.0,
        )  # fmt: skip

    def set_publishing(self, pending: PendingUpdate | None) -> None:
        """Name the update that is being sent, while no task is trained; None ends that.

        It renews the lease of its task, which would otherwise be issued again on a slow line.
        """
        with self._lock:
            self._publishing = pending

    def heartbeat(self) -> Heartbeat:
        """Return the heartbeat as it is sent, without its time and events."""
        with self._lock:
            beat, sending = self._heartbeat, self._publishing
        if sending is None or beat.task_id is not None:
            return beat
        return beat.model_copy(update={"state": "publishing", "task_id": sending.task_id})

    def unwanted_reason(self) -> str:
        """Return why the current task need not be finished; empty while it should be."""
        with self._lock:
            return self._unwanted_reason

    def add_event(self, kind: WorkerEventKind, text: str) -> None:
        """Send an event with the next heartbeats. It must not contain user text."""
        public = self._public_text(text)[:500]
        with self._lock:
            self._events.append(LocalEvent(at=self._clock(), kind=kind, text=public))

    def close(self) -> None:
        """Stop sending, and remove the heartbeat from the store."""
        self._closed.set()
        self._due.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        site, worker_id = self._heartbeat.site, self._heartbeat.worker_id
        _try(lambda: self._store.remove_heartbeat(self._run, site, worker_id))

    def _send_all(self) -> None:
        while not self._closed.is_set():
            with self._lock:
                fields = {"sent_at": self._clock(), "events": tuple(self._events)}
            heartbeat = self.heartbeat().model_copy(update=fields)
            self._on_heartbeat(_try(partial(self._store.put_heartbeat, self._run, heartbeat)))
            _try(self._check_task)
            self._due.wait(INTERVAL_S)
            self._due.clear()

    def _check_task(self) -> None:
        with self._lock:
            task, limit = self._task, self._max_staleness
        if task is None:
            return
        version = self._store.get_version(self._run) or 0
        receipt = self._store.get_receipt(self._run, self._heartbeat.site, task.task_id)
        reason = ""
        if receipt is not None:
            reason = f"settled already: {receipt.reason or receipt.state}"
        elif isinstance(task, TrainTask) and version - task.base_version > limit:
            reason = f"version {version} is out: staleness over {limit}"
        with self._lock:
            if self._task is task:
                self._unwanted_reason = reason


def _try(call: Callable[[], None]) -> bool:
    """Call a function, and return whether the store answered. The next heartbeat tries again."""
    try:
        call()
    except StoreError:
        return False
    return True

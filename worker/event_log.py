"""Event log of a worker: passes events to its heartbeats and to whoever runs it."""

from __future__ import annotations

from collections.abc import Callable

from worker.events import EventCallback, WorkerEventKind
from worker.heartbeat import HeartbeatSender


class EventLog:
    """Log that reports a cause of waiting once, and none once the run is over.

    `record` may be called from any thread.

    Args:
        heartbeats: Carry the newest events to the coordinator's viewers.
        run_over: Returns whether the run has ended. Its queues are then deleted, and what cannot be
            reached any more is of no interest.
        on_event: Called with each event.
    """

    def __init__(
        self,
        heartbeats: HeartbeatSender,
        run_over: Callable[[], bool],
        on_event: EventCallback,
    ) -> None:
        self._heartbeats = heartbeats
        self._run_over = run_over
        self._on_event = on_event
        self._waiting_for = ""

    def record(self, kind: WorkerEventKind, text: str) -> None:
        """Pass an event on. The text must not contain user text."""
        waiting = kind is WorkerEventKind.WAITING
        if waiting and (text == self._waiting_for or self._run_over()):
            return
        self._waiting_for = text if waiting else ""
        self._heartbeats.add_event(kind, text)
        self._on_event(kind, text)

"""Event log of a worker: passes events to its heartbeats and to a callback."""

from __future__ import annotations

from collections.abc import Callable

from worker.events import EventCallback, WorkerEventKind
from worker.heartbeat import HeartbeatSender


class EventLog:
    """Log that reports each cause of waiting once, and none after the end of the run.

    The queues of a run that has ended are deleted, so it is no news that they cannot be reached.
    `record` may be called from any thread.
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

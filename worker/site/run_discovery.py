"""Discovery of the run that a worker serves, and of its end.

Imports no model code, because workers call it before they know whether there is work.
"""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event as Flag

from common.errors import StoreError
from common.protocol.wire import unpack
from common.store.store import Store
from common.store.view import ENDED_STATUSES, RunInfo
from worker.events import EventCallback, WorkerEventKind

POLL_S = 1.0
OVER = ("finished", "failed")


def read_info(store: Store, run: str) -> RunInfo | None:
    raw = store.get_info(run)
    return None if raw is None else unpack(RunInfo, raw)[0]


def end_reason(store: Store, name: str, run: str) -> str:
    """Return why there will be no more tasks of a run; empty while there may be."""
    try:
        if store.get_run(name) not in (run, None):
            return f"another run is now called {name}"
        info = read_info(store, run)
    except StoreError:
        return ""
    return f"run {name} is {info.status}: {info.detail}" if info and info.status in OVER else ""


def idle_reason(store: Store, run: str) -> str:
    """Return why the coordinator issues no tasks, as it says itself; empty while it does."""
    try:
        info = read_info(store, run)
    except StoreError:  # the heartbeats report it
        return ""
    if info is None or info.status not in ("waiting", "paused"):
        return ""
    detail = f": {info.detail}" if info.detail else ""
    return f"no tasks, run {info.name} is {info.status}{detail}"


def find_run(store: Store, name: str, stop: Flag, on_event: EventCallback) -> str | None:
    """Wait for a run of this name that a coordinator serves, and return its id; None after `stop`.

    A store that is out of reach is tried again: workers may be started before anything else. A run
    that was stopped may never be resumed: its coordinator may come back with `--new`.
    """
    reported = ""
    while not stop.is_set():
        try:
            run = store.get_run(name)
            info = read_info(store, run) if run else None
            if run and info and info.status not in ENDED_STATUSES:
                return run
            text = f"waiting for the coordinator of run {name}"
            text += f" (the last one is {info.status})" if info else ""
        except StoreError as error:
            text = f"waiting: {error.what}"
        if text != reported:
            on_event(WorkerEventKind.WAITING, text)
            reported = text
        stop.wait(POLL_S)
    return None


def follow_runs(
    store: Store, name: str, stop: Flag, on_event: EventCallback, *, forever: bool
) -> Iterator[str]:
    """Yield the ids of the runs to serve, each once the one before is over; none after `stop`.

    Unless `forever` is set, there is only one.
    """
    while (run := find_run(store, name, stop, on_event)) is not None:
        yield run
        if not forever:
            return

"""Which run a worker serves, and whether that is over. Imports no model code: it is asked early."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event as Flag

from common.errors import StoreError
from common.protocol.wire import unpack
from common.store.store import Store
from common.store.view import RunInfo
from worker.events import EventCallback, WorkerEventKind

POLL_S = 1.0
OVER = ("finished", "failed")


def read_info(store: Store, run: str) -> RunInfo | None:
    """What the coordinator last told about a run.

    Raises:
        StoreError: Out of reach.
    """
    raw = store.get_info(run)
    return None if raw is None else unpack(RunInfo, raw)[0]


def end_reason(store: Store, name: str, run: str) -> str:
    """Why there will be no more tasks of a run; empty while there may be."""
    try:
        if store.get_run(name) not in (run, None):
            return f"another run is now called {name}"
        found = read_info(store, run)
    except StoreError:
        return ""
    return f"run {name} is {found.status}: {found.detail}" if found and found.status in OVER else ""


def find_run(store: Store, name: str, stop: Flag, told: EventCallback) -> str | None:
    """The id of the run that carries this name and is not over; None if `stop` was set first.

    A store out of reach is waited for: workers may be started before anything else.
    """
    said = ""
    while not stop.is_set():
        try:
            run = store.get_run(name)
            found = read_info(store, run) if run else None
            if run and found and found.status not in OVER:
                return run
            text = f"waiting for the coordinator of run {name}"
            text += f" (the last one is {found.status})" if found else ""
        except StoreError as error:
            text = f"waiting: {error.what}"
        if text != said:
            told(WorkerEventKind.WAITING, text)
            said = text
        stop.wait(POLL_S)
    return None


def follow_runs(
    store: Store, name: str, stop: Flag, told: EventCallback, *, forever: bool
) -> Iterator[str]:
    """The ids of the runs to serve, each when the one before is over; none after `stop`.

    Args:
        store: Where coordinators announce runs.
        name: Of the run.
        stop: Ends the waiting, and the runs.
        told: Called with the kind and text of what is waited for.
        forever: Go on with the next run of that name, whenever it may begin.
    """
    while (run := find_run(store, name, stop, told)) is not None:
        yield run
        if not forever:
            return

"""Part of `fccl worker` that keeps the result of a finished run at an invited site."""

from __future__ import annotations

import threading
from pathlib import Path

from cli.console import Output
from cli.run.job import WorkerJob
from common.errors import FcclError
from common.paths import cache_dir
from common.store.store import Store
from worker.delivery.delivered import BEST, FINAL, Delivered, delivered_folder
from worker.events import WorkerEventKind
from worker.settings.bandwidth import Throttle


def receive(job: WorkerJob, run: str, store: Store, stop: threading.Event, output: Output) -> bool:
    """Fetch what a run delivers to its sites, and print where it is; return whether it is here.

    The coordinator's own site gets nothing: the run directory has every version. A worker that
    waits for the next run only reports what goes wrong.

    Raises:
        FcclError: The versions cannot be fetched or written.
    """
    if job.invited_site is None or stop.is_set():
        return False
    from worker.delivery.receiver import DeliveryPlaces, receive_delivery

    throttle = Throttle(job.site_settings.download_rate)
    try:
        found = receive_delivery(store, run, DeliveryPlaces(job.state, cache_dir()), throttle, stop)
    except FcclError as error:
        if not job.forever:
            raise
        output.event(WorkerEventKind.WAITING, f"the result of run {run} is not here: {error}")
        return False
    if found is None:
        return False
    for line in describe(found, delivered_folder(job.state, run)):
        output.event(WorkerEventKind.DELIVERED, line)
    return True


def describe(found: Delivered, folder: Path) -> list[str]:
    """Return a line for each delivered version."""
    lines = [f"the last version ({found.final}) is in {folder / FINAL}"]
    if found.best == found.final:
        return [f"{lines[0]}; it is also the best one"]
    if found.best is not None:
        lines.append(f"the best version ({found.best}) is in {folder / BEST}")
    return lines

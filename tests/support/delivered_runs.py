"""Finished runs, and the delivery that their coordinator publishes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import fakeredis

from common.errors import ModelError
from common.evaluation.sums import EvaluationSums
from common.protocol.evaluations import EvalResult
from common.run_directory.recorded_run import read_config, read_run
from common.store.store import Store
from coordinator.core.events import LogEvent
from coordinator.publish.delivery import DeliveryPublisher
from coordinator.storage import run as runs
from coordinator.storage.run import Run
from tests.support.exported_runs import Made
from worker.delivery.delivered import Delivered
from worker.delivery.receiver import DeliveryPlaces, receive_delivery
from worker.settings.bandwidth import Throttle

CARD = "# Card of version {}\n"


def empty_store() -> Store:
    return Store(fakeredis.FakeRedis(), "nowhere")


def evaluate(made: Made, losses: dict[int, float]) -> None:
    """Record that one client evaluated these versions, with these losses per token."""
    with closing(sqlite3.connect(made.directory / "run.db")) as db, db:
        for version, loss in losses.items():
            result = EvalResult(
                task_id=f"e{version}",
                attempt=1,
                client_id="b",
                worker_id="w",
                version=version,
                sums=EvaluationSums(rows=10, loss=loss * 100, tokens=100, bytes=400),
                seconds=1.0,
            )
            db.execute(
                "INSERT INTO evaluation VALUES (?, 1, 'b', 'site', ?, 0, '', 1.0, 'accepted', '',"
                " 2.0, ?)",
                (f"e{version}", version, result.model_dump_json()),
            )


def publish(made: Made, store: Store, *, cards: bool = True) -> list[LogEvent]:
    """Publish the delivery of a run, as its coordinator does at the end; return its events."""

    def write_cards(of: Run, versions: Sequence[int]) -> list[str]:
        if not cards:
            raise ModelError("out of memory")
        return [CARD.format(version) for version in versions]

    run = runs.open_run(read_config(made.directory), lambda base: made.base)
    try:
        publisher = DeliveryPublisher(run, store, lambda: 5.0, write_cards)
        return publisher.publish(threading.Event())
    finally:
        run.journal.close()


def receive(made: Made, store: Store, state: Path, cache: Path) -> Delivered | None:
    """Receive the delivery of a run at a site."""
    places = DeliveryPlaces(state, cache)
    run = read_run(made.directory).run_id
    return receive_delivery(store, run, places, Throttle(None), threading.Event())

"""Tests of the runs that a worker serves: one or, with --forever, every run of the name."""

from __future__ import annotations

import threading

import fakeredis
import pytest

from common.protocol.wire import pack
from common.store.store import Store
from common.store.view import RunInfo, RunStatus
from worker.site.run_discovery import follow_runs, idle_reason

NAME = "r"


@pytest.fixture
def store() -> Store:
    return Store(fakeredis.FakeRedis(), "nowhere")


def announce(store: Store, run: str, status: RunStatus) -> None:
    info = RunInfo(
        run=run,
        name=NAME,
        status=status,
        version=0,
        total_versions=1,
        phase=0,
        phases=("sft",),
        clients=1,
        buffered=0,
        buffer_size=1,
        open_tasks=0,
        accepted=0,
        rejected=0,
        started_at=0.0,
        updated_at=0.0,
        max_staleness=1,
    )
    store.set_info(run, pack(info))
    store.set_run(NAME, run)


def quiet(kind: str, text: str) -> None: ...


def test_a_worker_serves_one_run(store: Store) -> None:
    announce(store, "first", "running")
    assert list(follow_runs(store, NAME, threading.Event(), quiet, forever=False)) == ["first"]


def test_a_worker_forever_serves_the_next_run_of_the_name_and_no_run_twice(store: Store) -> None:
    told: list[str] = []
    stop = threading.Event()

    def next_begins(kind: str, text: str) -> None:
        told.append(text)
        announce(store, "second", "waiting")

    announce(store, "first", "running")
    served = []
    for run in follow_runs(store, NAME, stop, next_begins, forever=True):
        served.append(run)
        announce(store, run, "finished")  # as its coordinator does
        if run == "second":
            stop.set()
    assert served == ["first", "second"]
    assert told == ["waiting for the coordinator of run r (the last one is finished)"]


def test_a_stop_ends_the_waiting(store: Store) -> None:
    stop = threading.Event()
    announce(store, "first", "finished")
    waits = follow_runs(store, NAME, stop, lambda kind, text: stop.set(), forever=True)
    assert list(waits) == []


def test_a_worker_waits_for_the_coordinator_of_a_stopped_run(store: Store) -> None:
    announce(store, "first", "stopped")
    told: list[str] = []

    def new_one_begins(kind: str, text: str) -> None:
        told.append(text)
        announce(store, "second", "waiting")

    found = list(follow_runs(store, NAME, threading.Event(), new_one_begins, forever=False))
    assert found == ["second"] and "the last one is stopped" in told[0]


def test_an_idle_worker_learns_why_the_coordinator_issues_no_tasks(store: Store) -> None:
    announce(store, "first", "running")
    assert idle_reason(store, "first") == ""
    announce(store, "first", "waiting")
    assert idle_reason(store, "first") == "no tasks, run r is waiting"

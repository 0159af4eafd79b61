"""A store is lost, emptied or late: the run continues, and the store is filled again."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from common.protocol.feed import Event
from common.protocol.kinds import EventKind
from common.store import view
from coordinator.publish import store_publisher
from tests.support.polled_federation import PolledFederation, check_complete


def test_a_store_out_of_reach_degrades_and_is_filled_again(federation: PolledFederation) -> None:
    def outage() -> None:
        if federation.turns == 6:
            federation.redis.down = True
        if federation.turns == 60:
            federation.redis.client.flushall()
            federation.redis.down = False

    federation.on_turn = outage
    outcome = federation.serve()
    kinds = [event.kind for event in federation.events]
    assert kinds.count("degraded") == kinds.count("restored") == 1
    check_complete(federation, outcome)
    assert len(view.read(federation.store, "r").versions) == 4


def test_a_store_that_is_emptied_between_two_ticks_is_filled_again(
    federation: PolledFederation,
) -> None:
    def flush() -> None:
        if federation.turns == 6:
            federation.redis.client.flushall()

    federation.on_turn = flush
    check_complete(federation, federation.serve())
    assert view.read(federation.store, "r").info.status == "finished"


def test_a_coordinator_starts_without_the_store(federation: PolledFederation) -> None:
    federation.redis.down = True

    def begin() -> None:
        if federation.turns == 20:
            federation.redis.down = False

    federation.on_turn = begin
    check_complete(federation, federation.serve())


class WatchedEvents(list[Event]):
    """List of events that calls back before the event is published."""

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        super().__init__()
        self._on_event = on_event

    def append(self, event: Event) -> None:
        super().append(event)
        self._on_event(event)


class CountingStop(threading.Event):
    """Stop flag that counts instead of waiting."""

    def __init__(self, act: Callable[[int], None]) -> None:
        super().__init__()
        self.waits = 0
        self._act = act

    def wait(self, timeout: float | None = None) -> bool:
        self.waits += 1
        self._act(self.waits)
        return self.is_set()


def lost_at_the_end(federation: PolledFederation, act: Callable[[int], None]) -> CountingStop:
    """Lose the store with the last version; `act` is called at every wait for it."""

    def lose_store(event: Event) -> None:
        if event.refs.get("version") == 3:
            federation.redis.down = True

    federation.events = WatchedEvents(lose_store)
    federation.stop = stop = CountingStop(act)
    return stop


def test_workers_learn_that_the_run_is_finished_from_a_store_that_is_late(
    federation: PolledFederation,
) -> None:
    def returns(waits: int) -> None:
        federation.redis.down = waits < 3

    stop = lost_at_the_end(federation, returns)
    check_complete(federation, federation.serve())
    assert stop.waits == 3
    assert view.read(federation.store, "r").info.status == "finished"
    kinds = [event.kind for event in federation.events if event.level == "warning"]
    assert kinds == ["degraded", "restored"]


def test_a_store_that_stays_out_of_reach_at_the_end_is_an_event(
    federation: PolledFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_publisher, "END_TIMEOUT_S", 0.05)
    stop = lost_at_the_end(federation, lambda _: None)
    assert federation.serve().complete
    assert stop.waits >= 1
    assert federation.events[-1].kind == EventKind.UNPUBLISHED


def test_a_stop_ends_the_wait_for_the_store(federation: PolledFederation) -> None:
    stop = lost_at_the_end(federation, lambda waits: federation.stop.set() if waits == 2 else None)
    assert federation.serve().complete
    assert stop.waits == 2 and federation.events[-1].kind == EventKind.UNPUBLISHED


def test_a_store_that_lost_its_last_second_of_writes_gets_the_version_again(
    federation: PolledFederation,
) -> None:
    def go_back() -> None:
        if any(event.refs.get("version") == 1 for event in federation.events):
            federation.on_turn = lambda: None
            federation.redis.client.set(f"fccl:{federation.topology.run}:version", 0)

    federation.on_turn = go_back
    check_complete(federation, federation.serve())
    kinds = [event.kind for event in federation.events if event.level == "warning"]
    assert kinds == [EventKind.RESTORED]


@pytest.mark.parametrize("lost", ["blob:*", "name of the run"])
def test_data_that_a_store_has_lost_are_published_again(
    federation: PolledFederation, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    monkeypatch.setattr(store_publisher, "CHECK_S", 1.0)
    redis, store, run_id = federation.redis.client, federation.store, federation.topology.run
    pattern = "fccl:run:r" if lost == "name of the run" else f"fccl:{run_id}:{lost}"

    def lose() -> None:
        if federation.turns == 8:
            federation.worker_is_absent = True  # no new version covers the loss
            redis.delete(*redis.keys(pattern))
        if federation.turns == 20:
            found = len(redis.keys(pattern)) > 0
            assert found and store.get_run("r") == run_id
            federation.worker_is_absent = False

    federation.on_turn = lose
    check_complete(federation, federation.serve())
    assert [e.kind for e in federation.events if e.level == "warning"] == [EventKind.RESTORED]

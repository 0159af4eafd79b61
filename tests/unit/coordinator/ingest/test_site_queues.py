"""Queues of the sites: invitations, floods, and declarations that the broker has lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker.embedded.broker import EmbeddedBroker, EmbeddedServer
from broker.protocol import Message, QueueMissing, Site, Topology
from coordinator.ingest.site_queues import CHECK_S, FLOOD_MESSAGES, FLOOD_S, MUTE_S, SiteQueues

A, B, LOCAL = Site("a"), Site("b"), Site("local")
USERS = {"a": "run.a", "b": "run.b"}


class ReconnectingBroker(EmbeddedBroker):
    """Broker that has reconnected as often as a test sets."""

    reconnects = 0

    @property
    def connections(self) -> int:
        return 1 + self.reconnects


class Bench:
    """Queues of a run with its own site and two invited ones, and a broker of the sites."""

    def __init__(self) -> None:
        server = EmbeddedServer()
        self.broker, self.sites = ReconnectingBroker(server), EmbeddedBroker(server)
        self.topology = Topology("run", (A, B, LOCAL))
        self.queues = SiteQueues(self.broker, "run", {"local": "me"})
        self.queues.open()
        self.queues.serve(USERS, set(), 0.0)
        self.queues.repair(0.0)

    def publish(self, site: Site, body: bytes = b"update") -> None:
        self.sites.publish_update(self.topology, site, Message(body))

    def received(self) -> list[tuple[str, str]]:
        """Return the site and user of every message that waits."""
        found = []
        while message := self.queues.receive(0.0):
            found.append((message.site, message.user))
            self.queues.ack(message)
        return found

    def flood(self, site: str, start: float = 0.0, messages: int = FLOOD_MESSAGES) -> bool:
        return [self.queues.count_refused(site, start) for _ in range(messages)][-1]


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.queues.close()


def test_a_message_comes_with_its_site_and_the_user_of_that_site(bench: Bench) -> None:
    for site in (A, B, LOCAL):
        bench.publish(site)
    assert sorted(bench.received()) == [("a", "run.a"), ("b", "run.b"), ("local", "me")]


def test_the_queues_of_a_revoked_site_are_deleted_and_the_others_are_still_read(
    bench: Bench,
) -> None:
    bench.queues.serve({"b": "run.b"}, {"a"}, 1.0)
    with pytest.raises(QueueMissing):
        bench.publish(A)
    bench.publish(B)
    assert bench.received() == [("b", "run.b")]


def test_a_site_that_floods_is_not_read_for_a_while(bench: Bench) -> None:
    assert not bench.flood("a", messages=FLOOD_MESSAGES - 1)
    assert bench.flood("a", messages=1)
    bench.publish(A)
    bench.publish(B)
    assert bench.received() == [("b", "run.b")]
    bench.queues.serve(USERS, set(), MUTE_S - 1)
    assert bench.received() == []
    bench.queues.serve(USERS, set(), MUTE_S + 1)
    assert bench.received() == [("a", "run.a")]


def test_slow_dead_letters_and_the_runs_own_sites_are_no_flood(bench: Bench) -> None:
    times = [number * (FLOOD_S / 10) for number in range(3 * FLOOD_MESSAGES)]
    assert not any(bench.queues.count_refused("a", now) for now in times)
    assert not bench.flood("local", messages=3 * FLOOD_MESSAGES)


def test_a_lost_queue_is_noticed_by_its_missing_depth_and_declared_again(bench: Bench) -> None:
    assert not bench.queues.check_is_due(1.0)
    bench.sites.delete(Topology("run", (A,)))
    assert bench.topology.update_queue(A) not in bench.queues.depths()
    assert bench.queues.check_is_due(1.0)
    missing = bench.queues.repair(1.0)
    assert set(missing) == {
        f"queue {name}"
        for name in (
            bench.topology.task_queue(A),
            bench.topology.update_queue(A),
            bench.topology.dead_queue,
        )
    }
    assert bench.queues.repair(2.0) == ()
    bench.publish(A)
    assert bench.received() == [("a", "run.a")]


def test_the_topology_is_verified_periodically_and_after_a_reconnect(bench: Bench) -> None:
    assert not bench.queues.check_is_due(CHECK_S - 0.1)
    assert bench.queues.check_is_due(CHECK_S)
    bench.broker.reconnects = 1
    assert bench.queues.check_is_due(1.0)
    bench.queues.repair(1.0)
    assert not bench.queues.check_is_due(1.0)

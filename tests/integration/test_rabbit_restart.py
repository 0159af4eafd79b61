"""The broker goes away and comes back while a publisher and a consumer work.

A RabbitMQ that is killed just after a binding was confirmed can come back without it. So a test
that publishes after a restart declares the topology again, as the coordinator does after every
reconnect (`coordinator/ingest/site_queues.py`).
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from broker.protocol import LOCAL, BrokerState, BrokerStatus, Message, QueueMissing, Topology
from broker.rabbit import broker as rabbit
from tests.support.servers import Server

pytestmark = [pytest.mark.servers, pytest.mark.slow]

CONNECTED = BrokerStatus(BrokerState.CONNECTED)
LONG = 60.0
"""Bounds a wait for something that must come; seconds."""
STEP = 30
"""Messages to see confirmed before and after a restart."""


class Traffic:
    """A publisher and a consumer of numbers, which record what was confirmed and what came."""

    def __init__(self, url: str, topology: Topology) -> None:
        self.publisher_statuses: list[BrokerStatus] = []
        self.consumer_statuses: list[BrokerStatus] = []
        self.publisher = rabbit.connect(url, self.publisher_statuses.append, publish_seconds=LONG)
        self.consumer = rabbit.connect(url, self.consumer_statuses.append)
        self.confirmed: set[int] = set()
        self.received: set[int] = set()
        self._topology = topology
        self._changed = threading.Condition()
        self._published_enough = threading.Event()
        self._received_enough = threading.Event()

    def publish(self) -> None:
        number = 0
        while not self._published_enough.is_set():
            try:
                self.publisher.publish_update(self._topology, LOCAL, Message(b"x", {"n": number}))
            except QueueMissing:
                self.consumer.declare(self._topology)
                continue
            with self._changed:
                self.confirmed.add(number)
                self._changed.notify_all()
            number += 1

    def consume(self) -> None:
        consumer = self.consumer.consume_updates(self._topology, [LOCAL], 8)
        while not self._received_enough.is_set():
            delivery = consumer.receive(0.1)
            if delivery is None:
                continue
            with self._changed:
                self.received.add(int(delivery.message.headers["n"]))
                self._changed.notify_all()
            consumer.ack(delivery)

    def wait_for_more(self) -> None:
        """Wait until both sides have made progress from here."""
        with self._changed:
            confirmed, received = len(self.confirmed) + STEP, len(self.received) + STEP
            assert self._changed.wait_for(
                lambda: len(self.confirmed) >= confirmed and len(self.received) >= received, LONG
            ), "the traffic did not go on"

    def finish(self, publishing: Future[None]) -> None:
        """Stop publishing, and receive all that was confirmed, including the last message."""
        self._published_enough.set()
        publishing.result(LONG)  # it may still wait for a confirmation
        with self._changed:
            self._changed.wait_for(lambda: self.confirmed <= self.received, LONG)
        self._received_enough.set()

    def wait_until_connected(self) -> None:
        """Wait for both connections of each broker: the idle one may come back later."""
        deadline = time.monotonic() + LONG
        while [self.publisher_statuses[-1], self.consumer_statuses[-1]] != [CONNECTED] * 2:
            assert time.monotonic() < deadline, "did not say that it is connected again"
            time.sleep(0.01)

    def close(self) -> None:
        self._published_enough.set()
        self._received_enough.set()
        self.publisher.close()
        self.consumer.close()


@pytest.fixture
def topology(restartable_rabbitmq: Server) -> Iterator[Topology]:
    topology = Topology(uuid.uuid4().hex)
    broker = rabbit.connect(restartable_rabbitmq.url)
    broker.declare(topology)
    yield topology
    broker.delete(topology)
    broker.close()


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "stopped"])
def test_publisher_and_consumer_go_on_and_no_confirmed_message_is_lost(
    restartable_rabbitmq: Server, topology: Topology, kill: bool
) -> None:
    traffic = Traffic(restartable_rabbitmq.url, topology)
    with ThreadPoolExecutor(2) as threads:
        try:
            work = [threads.submit(traffic.publish), threads.submit(traffic.consume)]
            traffic.wait_for_more()
            restartable_rabbitmq.restart(kill=kill)
            traffic.wait_for_more()
            traffic.finish(work[0])
            traffic.wait_until_connected()
            for each in work:
                each.result(LONG)
        finally:
            traffic.close()
    assert traffic.confirmed <= traffic.received
    for statuses in (traffic.publisher_statuses, traffic.consumer_statuses):
        assert any(status.state is BrokerState.LOST for status in statuses)


def test_an_answer_from_before_the_restart_does_nothing(
    restartable_rabbitmq: Server, topology: Topology
) -> None:
    broker = rabbit.connect(restartable_rabbitmq.url)
    broker.publish_task(topology, LOCAL, Message(b"task"))
    broker.publish_update(topology, LOCAL, Message(b"update"))
    task = broker.take_task(topology, LOCAL, LONG)
    consumer = broker.consume_updates(topology, [LOCAL], 1)
    update = consumer.receive(LONG)
    assert task is not None
    assert update is not None
    restartable_rabbitmq.restart(kill=True)
    again = consumer.receive(LONG)
    assert again is not None
    task.ack()
    consumer.ack(update)
    broker.declare(topology)
    task_again = broker.take_task(topology, LOCAL, LONG)
    assert task_again is not None
    assert task_again.redelivered
    task_again.ack()
    consumer.ack(again)
    broker.publish_update(topology, LOCAL, Message(b"next"))
    following = consumer.receive(LONG)
    assert following is not None
    assert following.message.body == b"next"
    broker.close()


def test_a_worker_that_waits_for_a_task_outlives_the_restart(
    restartable_rabbitmq: Server, topology: Topology
) -> None:
    worker = rabbit.connect(restartable_rabbitmq.url)
    coordinator = rabbit.connect(restartable_rabbitmq.url)
    with ThreadPoolExecutor(1) as threads:
        taking = threads.submit(worker.take_task, topology, LOCAL, LONG)
        restartable_rabbitmq.restart(kill=True)
        coordinator.declare(topology)
        coordinator.publish_task(topology, LOCAL, Message(b"task"))
        task = taking.result(LONG)
    assert task is not None
    task.ack()
    worker.close()
    coordinator.close()

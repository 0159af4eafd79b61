"""Contract of `broker.protocol`, for every implementation of it."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest

from broker import dead_letter
from broker.chunks import parse_chunk, split_update
from broker.embedded.broker import EmbeddedBroker, EmbeddedServer
from broker.protocol import (
    LOCAL,
    Broker,
    BrokerClosed,
    Consumer,
    Delivery,
    Message,
    QueueDepth,
    QueueFull,
    QueueMissing,
    QueueType,
    Site,
    TakenTask,
    Topology,
)
from broker.rabbit import broker as rabbit
from common.errors import BrokerError
from tests.support.chunks import join_chunks

LONG = 20.0
"""Limit of a wait for something that must happen, in seconds."""
SHORT = 0.3
"""Duration of a wait for something that must not happen, in seconds."""

Connect = Callable[[], Broker]
Named = Callable[..., Topology]

QUORUM = pytest.param("rabbitmq quorum", marks=pytest.mark.servers)
"""The same RabbitMQ, with the other type of queue."""


@pytest.fixture(params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.servers), QUORUM])
def which(request: pytest.FixtureRequest) -> str:
    """Return the name of the implementation under test."""
    return str(request.param)


@pytest.fixture
def connect(which: str, request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Return a function that opens brokers on one server, each like a process of its own."""
    opened: list[Broker] = []
    if which == "embedded":
        shared = EmbeddedServer()

        def make() -> Broker:
            return EmbeddedBroker(shared)
    else:
        url = request.getfixturevalue("rabbitmq").url

        def make() -> Broker:
            return rabbit.connect(url, publish_seconds=LONG)

    def connect() -> Broker:
        opened.append(make())
        return opened[-1]

    yield connect
    for broker in opened:
        broker.close()


@pytest.fixture
def broker(connect: Connect) -> Broker:
    return connect()


@pytest.fixture
def named(which: str) -> Named:
    """Return a function that makes topologies with the type of queue under test."""
    queue_type: QueueType = "quorum" if which.endswith("quorum") else "classic"
    return partial(Topology, queue_type=queue_type)


@pytest.fixture
def topology(broker: Broker, named: Named) -> Iterator[Topology]:
    topology = named(uuid.uuid4().hex)
    broker.declare(topology)
    yield topology
    broker.delete(topology)


def receive(consumer: Consumer, timeout: float = LONG) -> Delivery:
    delivery = consumer.receive(timeout)
    assert delivery is not None
    return delivery


def take(broker: Broker, topology: Topology) -> TakenTask:
    task = broker.take_task(topology, LOCAL, LONG)
    assert task is not None
    return task


def ready(broker: Broker, topology: Topology, queue: str) -> int:
    return broker.depths(topology)[queue].messages


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for a change that the broker makes asynchronously."""
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.01)


def read_dead(broker: Broker, topology: Topology) -> Message:
    """Take the next dead letter, as an operator's tool would: its queue is like the others."""

    class Dead(Topology):
        def task_queue(self, site: Site) -> str:
            return self.dead_queue

    task = take(broker, Dead(topology.run))
    task.ack()
    return task.message


# Publishing


def test_a_confirmed_task_is_in_its_queue(broker: Broker, topology: Topology) -> None:
    broker.publish_task(topology, LOCAL, Message(b"task"))
    assert broker.depths(topology) == {
        topology.task_queue(LOCAL): QueueDepth(messages=1, consumers=0),
        topology.update_queue(LOCAL): QueueDepth(messages=0, consumers=0),
        topology.dead_queue: QueueDepth(messages=0, consumers=0),
    }


def test_body_headers_and_id_arrive_as_they_were_sent(broker: Broker, topology: Topology) -> None:
    headers: dict[str, str | int] = {
        "text": "müsli, 日本",
        "empty": "",
        "big": 2**63 - 1,
        "negative": -(2**63),
    }
    body = bytes(range(256)) * 5000
    broker.publish_update(topology, LOCAL, Message(body, headers, message_id="update-1"))
    message = receive(broker.consume_updates(topology, [LOCAL], 1)).message
    assert (message.body, dict(message.headers), message.message_id) == (body, headers, "update-1")


def test_every_message_names_its_sender(broker: Broker, topology: Topology) -> None:
    broker.publish_update(topology, LOCAL, Message(b""))
    assert receive(broker.consume_updates(topology, [LOCAL], 1)).message.user_id in (
        "local",
        "guest",
    )


def test_nobody_can_publish_as_someone_else(broker: Broker, topology: Topology) -> None:
    with pytest.raises(BrokerError, match="mallory"):
        broker.publish_update(topology, LOCAL, Message(b"", user_id="mallory"))


def test_a_body_beyond_every_brokers_limit_is_refused(broker: Broker, topology: Topology) -> None:
    with pytest.raises(BrokerError, match="chunks"):
        broker.publish_update(topology, LOCAL, Message(bytes((16 << 20) + 1)))


def test_publishing_to_an_undeclared_run_fails(broker: Broker) -> None:
    nowhere = Topology("nowhere-" + uuid.uuid4().hex)
    with pytest.raises(QueueMissing):
        broker.publish_task(nowhere, LOCAL, Message(b"task"))
    with pytest.raises(QueueMissing):
        broker.publish_update(nowhere, LOCAL, Message(b"update"))


def test_publishing_works_after_a_refusal(broker: Broker, topology: Topology) -> None:
    with pytest.raises(QueueMissing):
        broker.publish_update(Topology("nowhere"), LOCAL, Message(b"lost"))
    broker.publish_update(topology, LOCAL, Message(b"kept"))
    assert receive(broker.consume_updates(topology, [LOCAL], 1)).message.body == b"kept"


def test_a_queue_at_its_byte_limit_refuses_until_there_is_room(
    broker: Broker, named: Named
) -> None:
    topology = named(uuid.uuid4().hex, update_bytes=2500)
    broker.declare(topology)
    accepted = fill(broker, topology, 1000)
    # A quorum queue enforces its limit a moment late.
    assert accepted == 2 if topology.queue_type == "classic" else 2 <= accepted < 10
    with pytest.raises(QueueFull):
        broker.publish_update(topology, LOCAL, Message(bytes(1000)))
    consumer = broker.consume_updates(topology, [LOCAL], 1)
    for _ in range(accepted):
        consumer.ack(receive(consumer))
    eventually(lambda: fill(broker, topology, 1000) > 0)
    broker.delete(topology)


def test_a_small_message_passes_where_a_large_one_is_refused(broker: Broker, named: Named) -> None:
    topology = named(uuid.uuid4().hex, update_bytes=2500)
    if topology.queue_type == "quorum":
        pytest.skip("once full, a quorum queue refuses everything until a fifth is free")
    broker.declare(topology)
    assert fill(broker, topology, 1000) == 2
    broker.publish_update(topology, LOCAL, Message(bytes(500)))
    receive(broker.consume_updates(topology, [LOCAL], 1))
    broker.publish_update(topology, LOCAL, Message(bytes(1000)))
    broker.delete(topology)


def fill(broker: Broker, topology: Topology, nbytes: int) -> int:
    """Publish updates until one is refused; return how many were accepted."""
    for number in range(1000):
        try:
            broker.publish_update(topology, LOCAL, Message(bytes(nbytes)))
        except QueueFull:
            return number
    raise AssertionError("there is no limit")


def test_several_threads_publish_and_consume_through_one_broker(
    broker: Broker, topology: Topology
) -> None:
    def publish(name: int) -> None:
        for number in range(20):
            broker.publish_update(topology, LOCAL, Message(f"{name}.{number}".encode()))

    consumer = broker.consume_updates(topology, [LOCAL], 4)
    bodies: set[bytes] = set()
    with ThreadPoolExecutor(4) as threads:
        published = [threads.submit(publish, name) for name in range(4)]
        while len(bodies) < 80:
            delivery = receive(consumer)
            bodies.add(delivery.message.body)
            consumer.ack(delivery)
        for each in published:
            each.result(LONG)
    assert bodies == {f"{name}.{number}".encode() for name in range(4) for number in range(20)}


# Declaring and deleting


def test_declaring_twice_keeps_the_messages(broker: Broker, topology: Topology) -> None:
    broker.publish_task(topology, LOCAL, Message(b"task"))
    broker.declare(topology)
    assert ready(broker, topology, topology.task_queue(LOCAL)) == 1


def test_declaring_with_another_limit_is_an_error(broker: Broker, topology: Topology) -> None:
    with pytest.raises(BrokerError, match="run's"):
        broker.declare(replace(topology, update_bytes=17))
    assert len(broker.depths(topology)) == 3


def test_declaring_with_another_type_of_queue_is_an_error(
    broker: Broker, topology: Topology, which: str
) -> None:
    if which == "embedded":
        pytest.skip("has one type of queue")
    other: QueueType = "classic" if topology.queue_type == "quorum" else "quorum"
    with pytest.raises(BrokerError, match=r"x-queue-type.*keep the run's settings"):
        broker.declare(replace(topology, queue_type=other))
    assert len(broker.depths(topology)) == 3


def test_delete_keeps_dead_letters_and_nothing_else(broker: Broker, topology: Topology) -> None:
    broker.publish_update(topology, LOCAL, Message(b"bad"))
    consumer = broker.consume_updates(topology, [LOCAL], 1)
    consumer.reject(receive(consumer), "bad")
    consumer.close()
    broker.publish_task(topology, LOCAL, Message(b"forgotten"))
    broker.delete(topology)
    assert broker.depths(topology) == {topology.dead_queue: QueueDepth(messages=1, consumers=0)}
    read_dead(broker, topology)
    broker.delete(topology)
    assert broker.depths(topology) == {}
    broker.delete(topology)


# Consuming


def test_an_acked_message_is_gone(connect: Connect, broker: Broker, topology: Topology) -> None:
    broker.publish_update(topology, LOCAL, Message(b"update"))
    consumer = broker.consume_updates(topology, [LOCAL], 1)
    consumer.ack(receive(consumer))
    consumer.close()
    other = connect().consume_updates(topology, [LOCAL], 1)
    assert other.receive(SHORT) is None


def test_unanswered_messages_of_a_lost_consumer_are_delivered_again(
    connect: Connect, broker: Broker, topology: Topology
) -> None:
    for number in range(3):
        broker.publish_update(topology, LOCAL, Message(bytes([number])))
    lost = connect()
    held = lost.consume_updates(topology, [LOCAL], 2)
    first, second = receive(held), receive(held)
    assert not first.redelivered
    held.ack(second)
    lost.close()
    eventually(lambda: ready(broker, topology, topology.update_queue(LOCAL)) == 2)
    consumer = broker.consume_updates(topology, [LOCAL], 3)
    again = receive(consumer)
    assert (again.message.body, again.redelivered) == (b"\0", True)
    assert receive(consumer).message.body == b"\2"


def test_no_more_than_prefetch_messages_are_unanswered(broker: Broker, topology: Topology) -> None:
    for number in range(4):
        broker.publish_update(topology, LOCAL, Message(bytes([number])))
    consumer = broker.consume_updates(topology, [LOCAL], 2)
    first = receive(consumer)
    receive(consumer)
    assert consumer.receive(SHORT) is None
    assert ready(broker, topology, topology.update_queue(LOCAL)) == 2
    consumer.ack(first)
    assert receive(consumer).message.body == b"\2"


def test_a_requeued_message_is_delivered_again(broker: Broker, topology: Topology) -> None:
    broker.publish_update(topology, LOCAL, Message(b"update"))
    consumer = broker.consume_updates(topology, [LOCAL], 1)
    consumer.requeue(receive(consumer))
    again = receive(consumer)
    assert again.redelivered
    consumer.ack(again)
    assert consumer.receive(SHORT) is None


def test_answering_twice_does_no_harm(broker: Broker, topology: Topology) -> None:
    broker.publish_update(topology, LOCAL, Message(b"1"))
    consumer = broker.consume_updates(topology, [LOCAL], 1)
    delivery = receive(consumer)
    consumer.ack(delivery)
    consumer.ack(delivery)
    consumer.requeue(delivery)
    broker.publish_update(topology, LOCAL, Message(b"2"))
    assert receive(consumer).message.body == b"2"


def test_an_old_delivery_cannot_answer_for_a_new_one(broker: Broker, topology: Topology) -> None:
    broker.publish_update(topology, LOCAL, Message(b"update"))
    first = broker.consume_updates(topology, [LOCAL], 1)
    old = receive(first)
    first.close()
    second = broker.consume_updates(topology, [LOCAL], 1)
    receive(second)
    second.ack(old)
    second.close()
    eventually(lambda: ready(broker, topology, topology.update_queue(LOCAL)) == 1)


def test_one_consumer_serves_all_sites(broker: Broker, named: Named) -> None:
    sites = (Site("a"), Site("b"))
    topology = named(uuid.uuid4().hex, sites)
    broker.declare(topology)
    consumer = broker.consume_updates(topology, sites, 1)
    for site in sites:
        broker.publish_update(topology, site, Message(site.name.encode()))
    received = {
        delivery.queue: delivery.message.body for delivery in (receive(consumer), receive(consumer))
    }
    assert received == {topology.update_queue(site): site.name.encode() for site in sites}
    broker.delete(topology)


def test_a_consumer_may_start_before_the_run_is_declared(broker: Broker, named: Named) -> None:
    topology = named(uuid.uuid4().hex)
    consumer = broker.consume_updates(topology, [LOCAL], 1)
    assert consumer.receive(SHORT) is None
    broker.declare(topology)
    broker.publish_update(topology, LOCAL, Message(b"update"))
    assert receive(consumer).message.body == b"update"
    broker.delete(topology)


def test_a_consumer_continues_after_its_queue_was_recreated(
    broker: Broker, topology: Topology
) -> None:
    if topology.queue_type == "quorum":
        pytest.skip("nothing relies on it, and once, on a busy machine, the consumer stayed lost")
    consumer = broker.consume_updates(topology, [LOCAL], 1)
    eventually(lambda: broker.depths(topology)[topology.update_queue(LOCAL)].consumers == 1)
    broker.delete(topology)
    broker.declare(topology)
    broker.publish_update(topology, LOCAL, Message(b"update"))
    assert receive(consumer).message.body == b"update"


def test_an_update_of_several_chunks_survives_repetition_and_disorder(
    broker: Broker, topology: Topology
) -> None:
    payload = random.Random(0).randbytes(10_500)
    messages = list(split_update("task-1.0", payload, chunk_bytes=1000)) * 2
    random.Random(1).shuffle(messages)
    for message in messages:
        broker.publish_update(topology, LOCAL, message)
    consumer = broker.consume_updates(topology, [LOCAL], 3)
    chunks = []
    for _ in messages:
        delivery = receive(consumer)
        chunks.append(parse_chunk(delivery.message, chunk_bytes=1000))
        consumer.ack(delivery)
    assert join_chunks(chunks) == payload


# Rejecting


def test_a_rejected_message_is_kept_with_its_reason(broker: Broker, topology: Topology) -> None:
    broker.publish_update(topology, LOCAL, Message(b"\xff", {"update_id": "u1"}, message_id="m1"))
    consumer = broker.consume_updates(topology, [LOCAL], 1)
    delivery = receive(consumer)
    consumer.reject(delivery, "no such client")
    assert consumer.receive(SHORT) is None
    letter = read_dead(broker, topology)
    assert letter.body == b"\xff"
    assert letter.message_id == "m1"
    assert letter.headers["update_id"] == "u1"
    assert letter.headers[dead_letter.DEAD_REASON] == "no such client"
    assert letter.headers[dead_letter.DEAD_QUEUE] == topology.update_queue(LOCAL)
    assert letter.headers[dead_letter.DEAD_USER] == delivery.message.user_id


def test_a_large_rejected_body_leaves_only_its_size_and_hash(
    broker: Broker, topology: Topology
) -> None:
    broker.publish_update(topology, LOCAL, Message(bytes((1 << 20) + 1)))
    consumer = broker.consume_updates(topology, [LOCAL], 1)
    consumer.reject(receive(consumer), "x" * 5000)
    letter = read_dead(broker, topology)
    assert letter.body == b""
    assert letter.headers[dead_letter.DEAD_SIZE] == (1 << 20) + 1
    assert len(str(letter.headers[dead_letter.DEAD_SHA256])) == 64


# Taking tasks


def test_taking_a_task_leaves_the_others_in_the_queue(broker: Broker, topology: Topology) -> None:
    for number in range(3):
        broker.publish_task(topology, LOCAL, Message(bytes([number])))
    task = take(broker, topology)
    assert (task.message.body, task.redelivered) == (b"\0", False)
    # Quorum queues count a consumer that was cancelled until its delivery is answered.
    held = 1 if topology.queue_type == "quorum" else 0
    queue = topology.task_queue(LOCAL)
    eventually(lambda: broker.depths(topology)[queue] == QueueDepth(messages=2, consumers=held))
    task.ack()
    eventually(lambda: broker.depths(topology)[queue] == QueueDepth(messages=2, consumers=0))


def test_two_workers_take_different_tasks(
    connect: Connect, broker: Broker, topology: Topology
) -> None:
    broker.publish_task(topology, LOCAL, Message(b"1"))
    broker.publish_task(topology, LOCAL, Message(b"2"))
    first = take(connect(), topology)
    second = take(connect(), topology)
    assert {first.message.body, second.message.body} == {b"1", b"2"}


def test_a_task_without_an_ack_is_delivered_again(
    connect: Connect, broker: Broker, topology: Topology
) -> None:
    broker.publish_task(topology, LOCAL, Message(b"task"))
    lost = connect()
    take(lost, topology)
    lost.close()
    task = take(broker, topology)
    assert task.redelivered
    task.ack()
    assert broker.take_task(topology, LOCAL, SHORT) is None


def test_a_requeued_task_can_be_taken_again(broker: Broker, topology: Topology) -> None:
    broker.publish_task(topology, LOCAL, Message(b"task"))
    take(broker, topology).requeue()
    assert take(broker, topology).redelivered


def test_a_rejected_task_reaches_the_coordinator_with_the_reason(
    broker: Broker, topology: Topology
) -> None:
    broker.publish_task(topology, LOCAL, Message(b"task"))
    take(broker, topology).reject("another base model")
    assert broker.take_task(topology, LOCAL, SHORT) is None
    rejection = receive(broker.consume_updates(topology, [LOCAL], 1)).message
    assert rejection.body == b"task"
    assert rejection.headers[dead_letter.DEAD_REASON] == "another base model"
    assert rejection.headers[dead_letter.DEAD_QUEUE] == topology.task_queue(LOCAL)


def test_a_missing_task_or_queue_is_no_error(broker: Broker, topology: Topology) -> None:
    assert broker.take_task(topology, LOCAL, SHORT) is None
    assert broker.take_task(Topology("nowhere"), LOCAL, SHORT) is None


def test_a_waiting_worker_gets_the_next_task(
    connect: Connect, broker: Broker, topology: Topology
) -> None:
    with ThreadPoolExecutor(1) as threads:
        task = threads.submit(take, connect(), topology)
        eventually(lambda: broker.depths(topology)[topology.task_queue(LOCAL)].consumers == 1)
        broker.publish_task(topology, LOCAL, Message(b"task"))
        assert task.result(LONG).message.body == b"task"


# Closing


def test_closing_wakes_waiting_consumers(connect: Connect, topology: Topology) -> None:
    broker = connect()
    consumer = broker.consume_updates(topology, [LOCAL], 1)
    with ThreadPoolExecutor(2) as threads:
        receiving = threads.submit(consumer.receive, LONG)
        taking = threads.submit(broker.take_task, topology, LOCAL, LONG)
        eventually(lambda: broker.depths(topology)[topology.task_queue(LOCAL)].consumers == 1)
        broker.close()
        with pytest.raises(BrokerClosed):
            receiving.result(LONG)
        with pytest.raises(BrokerClosed):
            taking.result(LONG)


def test_closing_finishes_running_publishes(
    connect: Connect, broker: Broker, topology: Topology
) -> None:
    closing = connect()
    published: list[int] = []
    begun = threading.Event()

    def publish() -> None:
        for number in range(100_000):
            closing.publish_update(topology, LOCAL, Message(b"update"))
            published.append(number)
            begun.set()

    with ThreadPoolExecutor(1) as threads:
        publishing = threads.submit(publish)
        assert begun.wait(LONG)
        closing.close()
        with pytest.raises(BrokerClosed):
            publishing.result(LONG)
    assert ready(broker, topology, topology.update_queue(LOCAL)) == len(published)


def test_a_closed_broker_does_nothing_more(connect: Connect, topology: Topology) -> None:
    broker = connect()
    broker.close()
    broker.close()
    for use in (
        lambda: broker.publish_task(topology, LOCAL, Message(b"")),
        lambda: broker.consume_updates(topology, [LOCAL], 1),
        lambda: broker.take_task(topology, LOCAL, SHORT),
        lambda: broker.depths(topology),
        lambda: broker.declare(topology),
    ):
        with pytest.raises(BrokerClosed):
            use()


def test_lost_queues_are_named_and_declared_again(
    broker: Broker, connect: Connect, topology: Topology
) -> None:
    assert broker.connections >= 1
    assert broker.repair(topology) == ()
    connect().delete(topology)
    missing = broker.repair(topology)
    assert {f"queue {name}" for name in topology.queues} <= set(missing)
    assert broker.repair(topology) == ()
    broker.publish_update(topology, LOCAL, Message(b"update"))
    consumer = broker.consume_updates(topology, [LOCAL], 1)
    assert receive(consumer).message.body == b"update"

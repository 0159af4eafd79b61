"""RabbitMQ loses what was declared: it is noticed, declared again and told."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from broker.protocol import LOCAL, Message, QueueMissing, Topology
from broker.rabbit import broker as rabbit
from broker.rabbit.broker import RabbitBroker
from tests.support.federations import federation
from tests.support.processes import eventually
from tests.support.servers import Server

pytestmark = [pytest.mark.servers, pytest.mark.slow]

LONG = 20.0
"""Bounds a wait for something that must come; seconds."""

Damage = Callable[[BlockingChannel, Topology], object]

UPDATES = Topology("RUN").update_queue(LOCAL)
TASKS = Topology("RUN").task_queue(LOCAL)


def unbind(channel: BlockingChannel, topology: Topology) -> None:
    channel.queue_unbind(topology.update_queue(LOCAL), topology.update_exchange(LOCAL))


def delete_update_queue(channel: BlockingChannel, topology: Topology) -> None:
    channel.queue_delete(topology.update_queue(LOCAL))


DAMAGES: dict[str, tuple[Damage, set[str]]] = {
    "binding": (unbind, {f"binding of queue {UPDATES}"}),
    "update queue": (delete_update_queue, {f"queue {UPDATES}"}),
    "task queue": (
        lambda channel, t: channel.queue_delete(t.task_queue(LOCAL)),
        {f"queue {TASKS}"},
    ),
    "dead-letter queue": (
        lambda channel, t: channel.queue_delete(t.dead_queue),
        {f"queue {Topology('RUN').dead_queue}"},
    ),
    "exchange": (
        lambda channel, t: channel.exchange_delete(t.update_exchange(LOCAL)),
        {f"exchange {UPDATES}"},
    ),
}


def damage(url: str, topology: Topology, act: Damage) -> None:
    """Change the server behind the coordinator's back."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        act(connection.channel(), topology)


@pytest.fixture
def broker(rabbitmq: Server) -> Iterator[RabbitBroker]:
    with closing(rabbit.connect(rabbitmq.url)) as broker:
        yield broker


@pytest.fixture(params=["classic", "quorum"])
def topology(broker: RabbitBroker, request: pytest.FixtureRequest) -> Iterator[Topology]:
    topology = Topology(uuid.uuid4().hex, queue_type=request.param)
    broker.declare(topology)
    yield topology
    broker.delete(topology)


@pytest.mark.parametrize("what", DAMAGES)
def test_what_is_lost_is_named_and_declared_again(
    rabbitmq: Server, broker: RabbitBroker, topology: Topology, what: str
) -> None:
    act, expected = DAMAGES[what]
    damage(rabbitmq.url, topology, act)
    found = broker.repair(topology)
    assert {name.replace(topology.run, "RUN") for name in found} == expected
    assert broker.repair(topology) == ()
    consumer = broker.consume_updates(topology, [LOCAL], 4)
    broker.publish_update(topology, LOCAL, Message(b"update"))
    delivery = consumer.receive(LONG)
    assert delivery is not None and delivery.message.body == b"update"
    consumer.reject(delivery, "read")  # takes the dead-letter queue
    broker.publish_task(topology, LOCAL, Message(b"task"))
    task = broker.take_task(topology, LOCAL, LONG)
    assert task is not None and task.message.body == b"task"
    task.ack()


def test_a_test_of_the_bindings_reaches_no_consumer_and_leaves_nothing(
    broker: RabbitBroker, topology: Topology
) -> None:
    for _ in range(3):
        assert broker.repair(topology) == ()  # nobody receives
    consumer = broker.consume_updates(topology, [LOCAL], 1)
    for number in range(3):  # with and without room below the prefetch limit
        assert broker.repair(topology) == ()
        broker.publish_update(topology, LOCAL, Message(b"update", {"n": number}))
    for number in range(3):
        delivery = consumer.receive(LONG)
        assert delivery is not None and delivery.message.headers == {"n": number}
        assert broker.repair(topology) == ()
        consumer.ack(delivery)
    assert consumer.receive(0.3) is None
    consumer.close()
    assert all(depth.messages == 0 for depth in broker.depths(topology).values())


def test_a_binding_to_a_full_queue_is_not_taken_for_lost(broker: RabbitBroker) -> None:
    topology = Topology(uuid.uuid4().hex, update_bytes=10)
    broker.declare(topology)
    broker.publish_update(topology, LOCAL, Message(b"x" * 10))
    assert broker.repair(topology) == ()
    broker.delete(topology)


@pytest.mark.parametrize("what", ["binding", "update queue"])
def test_a_federation_notices_the_loss_repairs_it_and_goes_on(
    tmp_path: Path, model_cache: Path, rabbitmq: Server, redis_server: Server, what: str
) -> None:
    with federation(tmp_path, model_cache, rabbitmq.url, redis_server.url, versions=200) as run:
        coordinator = run.coordinator()
        run.worker()
        run.reaches(1)
        topology = Topology(run.run_id)
        damage(rabbitmq.url, topology, DAMAGES[what][0])
        told = eventually(
            "it is told",
            lambda: run.rows("SELECT level, text FROM event WHERE kind = 'repaired'"),
        )
        assert [(level, what.rsplit(maxsplit=1)[-1] in text) for level, text in told] == [
            ("warning", True)
        ]
        run.reaches(run.version() + 2)  # two commits: updates arrive again
        assert any(event["kind"] == "repaired" for event in (run.status() or {})["events"])
        assert coordinator.code is None


def test_an_update_cannot_be_published_while_the_binding_is_lost(
    rabbitmq: Server, broker: RabbitBroker, topology: Topology
) -> None:
    damage(rabbitmq.url, topology, unbind)
    with pytest.raises(QueueMissing):
        broker.publish_update(topology, LOCAL, Message(b"update"))

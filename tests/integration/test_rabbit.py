"""RabbitMQ over the network: unreachable servers, refused logins, hostile messages."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator

import pika
import pytest

from broker.protocol import LOCAL, BrokerState, BrokerStatus, Message, Topology
from broker.rabbit import broker as rabbit
from common.errors import BrokerError
from tests.support.servers import Server, free_port

LONG = 20.0
SECRET = "sesame"


@pytest.fixture
def topology(rabbitmq: Server) -> Iterator[Topology]:
    topology = Topology(uuid.uuid4().hex)
    broker = rabbit.connect(rabbitmq.url)
    broker.declare(topology)
    yield topology
    broker.delete(topology)
    broker.close()


def test_an_unreachable_broker_is_named_with_the_remedy_and_without_the_password() -> None:
    port = free_port()
    with pytest.raises(BrokerError) as caught:
        rabbit.connect(f"amqp://guest:{SECRET}@127.0.0.1:{port}/")
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "refused" in caught.value.what
    assert caught.value.remedy
    assert SECRET not in str(caught.value)


def test_an_unreadable_url_is_not_repeated() -> None:
    for url in (f"http://guest:{SECRET}@host/", f"amqp://guest:{SECRET}@host:port/", SECRET):
        with pytest.raises(BrokerError) as caught:
            rabbit.connect(url)
        assert SECRET not in str(caught.value)


def test_nothing_of_pika_reaches_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BrokerError):
        rabbit.connect(f"amqp://guest:guest@127.0.0.1:{free_port()}/")
    assert capfd.readouterr() == ("", "")


@pytest.mark.servers
def test_a_wrong_password_is_named_as_such(rabbitmq: Server) -> None:
    address = rabbitmq.url.split("@")[1]
    with pytest.raises(BrokerError, match="user or password") as caught:
        rabbit.connect(f"amqp://guest:{SECRET}@{address}")
    assert SECRET not in str(caught.value)


@pytest.mark.servers
def test_an_unknown_virtual_host_is_named_as_such(rabbitmq: Server) -> None:
    with pytest.raises(BrokerError, match="virtual host"):
        rabbit.connect(rabbitmq.url.removesuffix("%2F") + "nowhere")


@pytest.mark.servers
def test_a_worker_is_told_that_its_queue_is_missing(rabbitmq: Server, topology: Topology) -> None:
    statuses: list[BrokerStatus] = []
    broker = rabbit.connect(rabbitmq.url, statuses.append)
    nowhere = Topology("nowhere")
    assert broker.take_task(nowhere, LOCAL, 1.0) is None
    assert statuses[-1].state is BrokerState.WAITING
    assert nowhere.task_queue(LOCAL) in statuses[-1].detail
    assert broker.take_task(topology, LOCAL, 1.0) is None
    assert statuses[-1] == BrokerStatus(BrokerState.CONNECTED)
    broker.close()


@pytest.mark.servers
@pytest.mark.parametrize(
    "field",
    [
        b"T" + b"\xff" * 8,
        b"d" + struct.pack(">d", 1e300),
        b"A"
        + struct.pack(">I", 5 * 2000)
        + b"".join(b"A" + struct.pack(">I", 5 * depth) for depth in reversed(range(2000))),
        b"A" + struct.pack(">I", 1) + b"V",
        b"S" + struct.pack(">I", 2) + b"\xff\xfe",
        b"t\x01",
    ],
    ids=["far future", "huge number", "deep nesting", "array", "not UTF-8", "boolean"],
)
def test_a_hostile_header_does_not_stop_the_consumer(
    rabbitmq: Server, topology: Topology, field: bytes
) -> None:
    table = b"\x01h" + field
    raw = struct.pack(">H", pika.BasicProperties.FLAG_HEADERS) + struct.pack(">I", len(table))
    with pika.BlockingConnection(pika.URLParameters(rabbitmq.url)) as hostile:
        exchange = topology.update_exchange(LOCAL)
        hostile.channel().basic_publish(exchange, "", b"poison", _RawProperties(raw + table))
    broker = rabbit.connect(rabbitmq.url)
    broker.publish_update(topology, LOCAL, Message(b"fine", {"n": 1}))
    consumer = broker.consume_updates(topology, [LOCAL], 1)
    poison = consumer.receive(LONG)
    assert poison is not None
    assert (poison.message.body, poison.message.headers) == (b"poison", {})
    assert poison.message.user_id is None
    consumer.reject(poison, "no sender")
    fine = consumer.receive(LONG)
    assert fine is not None
    assert fine.message.body == b"fine"
    broker.close()


class _RawProperties(pika.BasicProperties):  # type: ignore[misc]  # pika is untyped
    """Encoded properties that pika itself would never write."""

    def __init__(self, encoded: bytes) -> None:
        super().__init__()
        self._encoded = encoded

    def encode(self) -> list[bytes]:
        return [self._encoded]

"""RabbitMQ in alarm: publishers are told the cause within seconds, and the rest goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker.protocol import LOCAL, BrokerBlocked, BrokerState, BrokerStatus, Message, Topology
from broker.rabbit.broker import connect
from broker.rabbit.probe import probe
from tests.support.processes import eventually
from tests.support.servers import PrivateRabbitMQ

pytestmark = [pytest.mark.servers, pytest.mark.slow]
ENDLESS = str(1 << 60)  # bytes that no disk has free


@pytest.fixture
def own_rabbitmq() -> Iterator[PrivateRabbitMQ]:
    server = PrivateRabbitMQ()
    try:
        server.start()
        yield server
    finally:
        server.close()


def test_an_alarm_is_named_at_once_and_its_end_is_noticed(own_rabbitmq: PrivateRabbitMQ) -> None:
    statuses: list[BrokerStatus] = []
    broker = connect(own_rabbitmq.url, statuses.append)
    topology = Topology("run-1", (LOCAL,))
    broker.declare(topology)
    broker.publish_task(topology, LOCAL, Message(b"1"))
    assert probe(own_rabbitmq.url, prefix="fccl.").alarm is None

    own_rabbitmq.control("set_disk_free_limit", ENDLESS)
    for _ in range(2):  # the first one still waits in the connection
        with pytest.raises(BrokerBlocked, match="refuses publishers: disk alarm") as caught:
            broker.publish_task(topology, LOCAL, Message(b"2"))
        assert "disk_free_limit" in caught.value.remedy
    assert "disk alarm" in broker.blocked
    assert statuses[-1].state is BrokerState.BLOCKED
    alarm = probe(own_rabbitmq.url, prefix="fccl.").alarm
    assert alarm is not None and alarm.what == caught.value.what
    taken = broker.take_task(topology, LOCAL, 5)  # consuming goes on
    assert taken is not None and taken.message.body == b"1"
    taken.ack()

    own_rabbitmq.control("set_disk_free_limit", "1000000")
    eventually("taken again", lambda: not broker.blocked)
    assert statuses[-1].state is BrokerState.CONNECTED
    broker.publish_task(topology, LOCAL, Message(b"3"))
    bodies = []
    while taken := broker.take_task(topology, LOCAL, 1):
        bodies.append(taken.message.body)
        taken.ack()
    assert bodies == [b"2", b"3"]  # what was given up arrived nevertheless, once
    broker.close()

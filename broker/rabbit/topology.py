"""A run's exchanges, queues and bindings on RabbitMQ: declaration, deletion and checks.

Each function runs on a connection's own thread (`broker.rabbit.connection`).
"""

from __future__ import annotations

from collections.abc import Iterable

import pika
from pika import exceptions as pika_errors
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

from broker.protocol import Message, QueueDepth, Site, Topology

PROBE = "fccl-probe"
"""Header of the messages that test bindings; consumers drop them."""
_NOT_FOUND = 404


def declare(connection: BlockingConnection, topology: Topology) -> None:
    """Declare the exchanges, queues and bindings of a run; existing ones stay as they are."""
    # No x-delivery-limit: RabbitMQ 4.x defaults to 20 for quorum queues, 3.x has no limit and
    # refuses -1. Nothing is lost where the limit drops a message: an unacknowledged task is issued
    # again, and an update without a receipt is sent again.
    queue_type = {"x-queue-type": topology.queue_type}
    limit = {"x-max-length-bytes": topology.update_bytes, "x-overflow": "reject-publish"}
    with connection.channel() as channel:
        channel.queue_declare(topology.dead_queue, durable=True, arguments=queue_type)
        for site in topology.sites:
            channel.queue_declare(topology.task_queue(site), durable=True, arguments=queue_type)
            exchange, queue = topology.update_exchange(site), topology.update_queue(site)
            channel.exchange_declare(exchange, "fanout", durable=True)
            channel.queue_declare(queue, durable=True, arguments=queue_type | limit)
            channel.queue_bind(queue, exchange)


def delete(connection: BlockingConnection, topology: Topology) -> None:
    """Delete the exchanges and queues of a run; a dead-letter queue with messages stays."""
    with connection.channel() as channel:
        for site in topology.sites:
            channel.exchange_delete(topology.update_exchange(site))
            channel.queue_delete(topology.task_queue(site))
            channel.queue_delete(topology.update_queue(site))
    # Not with if_empty: a quorum queue answers that by closing the connection.
    depth = _depth(connection, topology.dead_queue)
    if depth is not None and not depth.messages:
        with connection.channel() as channel:
            channel.queue_delete(topology.dead_queue)


def depths(connection: BlockingConnection, topology: Topology) -> dict[str, QueueDepth]:
    """Return the depth of each of the run's queues that exists, by queue name."""
    found = {queue: _depth(connection, queue) for queue in topology.queues}
    return {queue: depth for queue, depth in found.items() if depth is not None}


def missing_queues(connection: BlockingConnection, topology: Topology) -> list[str]:
    return [name for name in topology.queues if _depth(connection, name) is None]


def missing_exchanges(connection: BlockingConnection, topology: Topology) -> list[str]:
    names = (topology.update_exchange(site) for site in topology.sites)
    return [name for name in names if not _exchange_exists(connection, name)]


def missing_bindings(
    channel: BlockingChannel, topology: Topology, sites: Iterable[Site], user: str
) -> list[str]:
    """Return the names of the update queues that their exchange does not reach.

    AMQP has no method to look at a binding, so an empty message is published to each exchange:
    RabbitMQ returns it if no queue is bound. Otherwise the message expires at once, or the consumer
    drops it.

    The queue and exchange of each of the `sites` exist; the `channel` confirms publishes.
    """
    properties = pika.BasicProperties(headers={PROBE: 1}, expiration="0", user_id=user)
    missing = []
    for site in sites:
        exchange = topology.update_exchange(site)
        try:
            channel.basic_publish(exchange, "", b"", properties, mandatory=True)
        except pika_errors.UnroutableError:
            missing.append(topology.update_queue(site))
        except pika_errors.NackError:
            pass  # the queue is full, so the exchange reaches it
    return missing


def is_probe(message: Message, user: str) -> bool:
    """Return whether this user published the message to test a binding."""
    return PROBE in message.headers and message.user_id == user


def _exchange_exists(connection: BlockingConnection, exchange: str) -> bool:
    channel = connection.channel()
    try:
        channel.exchange_declare(exchange, passive=True)
    except pika_errors.ChannelClosedByBroker as error:
        if error.reply_code != _NOT_FOUND:
            raise
        return False
    channel.close()
    return True


def _depth(connection: BlockingConnection, queue: str) -> QueueDepth | None:
    channel = connection.channel()
    try:
        found = channel.queue_declare(queue, passive=True).method
    except pika_errors.ChannelClosedByBroker as error:
        if error.reply_code != _NOT_FOUND:
            raise
        return None
    channel.close()
    return QueueDepth(int(found.message_count), int(found.consumer_count))

"""A run's queues, exchanges and bindings on RabbitMQ: declare, delete, measure, find what is lost.

These functions run on the thread of a `broker.rabbit.connection.RabbitConnection`.
"""

from __future__ import annotations

from collections.abc import Iterable

import pika
from pika import exceptions as pika_errors
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

from broker.protocol import Message, QueueDepth, Site, Topology

PROBE = "fccl-probe"
"""Header of the messages by which bindings are tested. Consumers drop them."""
_NOT_FOUND = 404


def declare(connection: BlockingConnection, topology: Topology) -> None:
    """Declare everything; what exists with the same properties stays as it is."""
    # No x-delivery-limit: 4.x has 20 for quorum queues, 3.x none, and -1 is refused by 3.x. What is
    # dropped there comes again: an unacked task is issued anew, an update without a receipt resent.
    kind = {"x-queue-type": topology.queue_type}
    limited = {"x-max-length-bytes": topology.update_bytes, "x-overflow": "reject-publish"}
    with connection.channel() as channel:
        channel.queue_declare(topology.dead_queue, durable=True, arguments=kind)
        for site in topology.sites:
            channel.queue_declare(topology.task_queue(site), durable=True, arguments=kind)
            exchange, queue = topology.update_exchange(site), topology.update_queue(site)
            channel.exchange_declare(exchange, "fanout", durable=True)
            channel.queue_declare(queue, durable=True, arguments=kind | limited)
            channel.queue_bind(queue, exchange)


def delete(connection: BlockingConnection, topology: Topology) -> None:
    """Delete everything, but for a dead-letter queue that holds something."""
    with connection.channel() as channel:
        for site in topology.sites:
            channel.exchange_delete(topology.update_exchange(site))
            channel.queue_delete(topology.task_queue(site))
            channel.queue_delete(topology.update_queue(site))
    # Not if_empty: a quorum queue answers that by closing the connection.
    if (depth := _depth(connection, topology.dead_queue)) is not None and not depth.messages:
        with connection.channel() as channel:
            channel.queue_delete(topology.dead_queue)


def depths(connection: BlockingConnection, topology: Topology) -> dict[str, QueueDepth]:
    """Return the depth of each queue that exists, by queue name."""
    found = {queue: _depth(connection, queue) for queue in topology.queues}
    return {queue: depth for queue, depth in found.items() if depth is not None}


def missing_queues(connection: BlockingConnection, topology: Topology) -> list[str]:
    """Return the names of the queues that do not exist."""
    return [name for name in topology.queues if _depth(connection, name) is None]


def missing_exchanges(connection: BlockingConnection, topology: Topology) -> list[str]:
    """Return the names of the exchanges that do not exist."""
    names = (topology.update_exchange(site) for site in topology.sites)
    return [name for name in names if not _exchange_exists(connection, name)]


def missing_bindings(
    channel: BlockingChannel, topology: Topology, sites: Iterable[Site], user: str
) -> list[str]:
    """Return the names of the update queues that their exchange does not reach.

    AMQP has no question for bindings, so an empty message is published to each exchange: RabbitMQ
    returns it if no queue is bound. Otherwise it expires at once or is dropped by the consumer.

    Args:
        channel: A channel that confirms what is published.
        topology: The run.
        sites: Sites whose queue and exchange exist.
        user: The user of the connection.
    """
    properties = pika.BasicProperties(headers={PROBE: 1}, expiration="0", user_id=user)
    found = []
    for site in sites:
        try:
            channel.basic_publish(
                topology.update_exchange(site), "", b"", properties, mandatory=True
            )
        except pika_errors.UnroutableError:
            found.append(topology.update_queue(site))
        except pika_errors.NackError:
            pass  # the queue is full, so the exchange reaches it
    return found


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

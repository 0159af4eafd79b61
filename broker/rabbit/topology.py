"""A run's exchanges and queues on RabbitMQ: declared, deleted and measured.

Each function runs on a connection's own thread (`broker.rabbit.connection`).
"""

from __future__ import annotations

from pika import exceptions as pika_errors
from pika.adapters.blocking_connection import BlockingConnection

from broker.protocol import QueueDepth, Topology

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

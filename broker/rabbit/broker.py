"""`RabbitBroker`: the broker protocol over RabbitMQ.

Publishing and consuming have a connection each (`broker.rabbit.connection`); consumers are
subscriptions that outlive connections (`broker.rabbit.subscription`). Works alike on RabbitMQ 3.10
to 4.x: classic durable or quorum queues, a prefetch limit per consumer, and no argument that one
of these versions lacks.

In an update's path: `publish_update` sends what `worker/publisher.py` hands over, and
`coordinator/service.py` receives it through `consume_updates`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import TypeVar

import pika
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

from broker.protocol import (
    BrokerClosed,
    Consumer,
    Message,
    QueueDepth,
    Site,
    StatusListener,
    TakenTask,
    Topology,
    check_publishable,
)
from broker.rabbit import topology as queues
from broker.rabbit.alarm import blocked_error
from broker.rabbit.connection import RabbitConnection
from broker.rabbit.consumer import RabbitConsumer
from broker.rabbit.pika_setup import make_parameters, prepare_pika
from broker.rabbit.status import JoinedStatus
from broker.rabbit.subscription import Subscription
from broker.single_task import SingleTask
from common.errors import BrokerError

PUBLISH_SECONDS = 60.0
CONTROL_SECONDS = 10.0
PROBE_SECONDS = 5.0
TASK_PATIENCE_SECONDS, DEAD_PATIENCE_SECONDS = 1.0, 5.0
"""Longest wait of the coordinator, which has other work to do, for a broker in alarm."""

T = TypeVar("T")


def connect(
    url: str,
    on_status: StatusListener | None = None,
    publish_seconds: float = PUBLISH_SECONDS,
    ca: str | None = None,
) -> RabbitBroker:
    """Return a started `RabbitBroker`, which documents the arguments and errors."""
    broker = RabbitBroker(url, on_status, publish_seconds, ca)
    broker.start()
    return broker


class RabbitBroker:
    """One user's connections to RabbitMQ; implements `broker.protocol.Broker`.

    Args:
        url: amqp:// or amqps://, with user and password.
        on_status: Called on every change of status from the connections' threads; must return
            soon.
        publish_seconds: How long a publish waits for a lost connection to come back.
        ca: File of certificates (PEM) to verify an amqps:// server with; None uses the system's.

    Raises:
        BrokerError: The URL cannot be read, or there are no certificates in `ca`.
    """

    def __init__(
        self,
        url: str,
        on_status: StatusListener | None = None,
        publish_seconds: float = PUBLISH_SECONDS,
        ca: str | None = None,
    ) -> None:
        parameters = make_parameters(url, ca)
        self._user = str(parameters.credentials.username)
        self._publish_seconds = publish_seconds
        self._status = JoinedStatus(on_status)
        self._publish_channel: BlockingChannel | None = None
        self._probing: Future[object] | None = None
        self._closed = False
        listener = self._status.listener
        self._publishing = RabbitConnection(parameters, "publish", listener("publish"))
        self._consuming = RabbitConnection(parameters, "consume", listener("consume"))
        self._consumers: set[RabbitConsumer] = set()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Connect, and keep both connections until `close`.

        Raises:
            BrokerError: RabbitMQ cannot be reached, or refuses the user; raised within seconds.
        """
        prepare_pika()
        self._consuming.start()
        try:
            self._publishing.start()
        except BrokerError:
            self._consuming.close()
            raise

    def declare(self, topology: Topology) -> None:
        self._control(lambda connection: queues.declare(connection, topology))

    @property
    def connections(self) -> int:
        return self._publishing.connections + self._consuming.connections

    @property
    def blocked(self) -> str:
        publishing = self._publishing
        if not publishing.blocked:
            return ""
        return str(blocked_error(publishing.where, publishing.blocked))

    def repair(self, topology: Topology) -> tuple[str, ...]:
        missing = self._control(lambda connection: queues.missing_queues(connection, topology))
        exchanges = self._control(lambda connection: queues.missing_exchanges(connection, topology))
        whole = [
            site
            for site in topology.sites
            if topology.update_queue(site) not in missing
            and topology.update_exchange(site) not in exchanges
        ]
        bindings = self._missing_bindings(topology, whole)
        self.declare(topology)
        return (
            *(f"queue {name}" for name in missing),
            *(f"exchange {name}" for name in exchanges),
            *(f"binding of queue {name}" for name in bindings),
        )

    def delete(self, topology: Topology) -> None:
        self._control(lambda connection: queues.delete(connection, topology))

    def depths(self, topology: Topology) -> Mapping[str, QueueDepth]:
        return self._control(lambda connection: queues.depths(connection, topology))

    def publish_task(self, topology: Topology, site: Site, message: Message) -> None:
        self._publish("", topology.task_queue(site), message, TASK_PATIENCE_SECONDS)

    def publish_update(self, topology: Topology, site: Site, message: Message) -> None:
        self._publish(topology.update_exchange(site), "", message)

    def consume_updates(self, topology: Topology, sites: Iterable[Site], prefetch: int) -> Consumer:
        names = [topology.update_queue(site) for site in sites]
        subscription = Subscription(
            names, prefetch, drop=lambda message: queues.is_probe(message, self._user)
        )
        return self._consume(subscription, topology)

    def take_task(self, topology: Topology, site: Site, timeout: float) -> TakenTask | None:
        subscription = Subscription([topology.task_queue(site)], 1, once=True)
        consumer = self._consume(subscription, topology)
        delivery = consumer.receive(timeout)
        if subscription.attached or subscription.refusal:
            self._status.set_missing(subscription.refusal)
        if delivery is None:
            consumer.close()
            return None
        consumer.cancel()
        return SingleTask(
            consumer, delivery, lambda message: self.publish_update(topology, site, message)
        )

    def close(self) -> None:
        with self._lock:
            self._closed = True
            consumers = list(self._consumers)
        # Consumers first: their owners stop taking work while publishes still go out.
        for consumer in consumers:
            consumer.close()
        self._publishing.close()
        self._consuming.close()

    def _consume(self, subscription: Subscription, topology: Topology) -> RabbitConsumer:
        def publish_dead(message: Message) -> None:
            self._publish("", topology.dead_queue, message, DEAD_PATIENCE_SECONDS)

        with self._lock:
            if self._closed:
                raise BrokerClosed()
            consumer = RabbitConsumer(
                self._consuming, subscription, publish_dead, self._consumers.discard
            )
            self._consumers.add(consumer)
        self._consuming.add(subscription)
        return consumer

    def _missing_bindings(self, topology: Topology, sites: Iterable[Site]) -> list[str]:
        """Return the update queues without a binding; none where the broker takes no messages.

        A broker in alarm does not read from the publishing connection. The caller must not wait
        for that: the updates that it takes meanwhile are what relieves the broker.
        """
        if self._probing is not None and not self._probing.done():
            return []

        def probe(connection: BlockingConnection) -> list[str]:
            channel = self._confirming_channel(connection)
            missing = queues.missing_bindings(channel, topology, sites, self._user)
            self._publishing.note_accepted()
            return missing

        self._probing = self._publishing.call_if_connected(probe)
        try:
            return self._probing.result(PROBE_SECONDS)  # type: ignore[return-value]  # of `probe`
        except TimeoutError:
            return []

    def _control(self, operation: Callable[[BlockingConnection], T]) -> T:
        # Not on the publishing connection: a broker in alarm does not answer there.
        return self._consuming.call(operation, CONTROL_SECONDS)

    def _publish(
        self, exchange: str, routing_key: str, message: Message, patience: float | None = None
    ) -> None:
        check_publishable(message, self._user)
        properties = pika.BasicProperties(
            headers=dict(message.headers),
            delivery_mode=pika.DeliveryMode.Persistent.value,
            user_id=self._user,
            message_id=message.message_id or None,
        )

        def send(connection: BlockingConnection) -> None:
            channel = self._confirming_channel(connection)
            channel.basic_publish(exchange, routing_key, message.body, properties, mandatory=True)
            self._publishing.note_accepted()

        self._publishing.call(send, self._publish_seconds, patience)

    def _confirming_channel(self, connection: BlockingConnection) -> BlockingChannel:
        """Return the channel for publishing. Called by the publishing connection's thread only."""
        channel = self._publish_channel
        if channel is None or channel.connection is not connection or not channel.is_open:
            channel = connection.channel()
            channel.confirm_delivery()
            self._publish_channel = channel
        return channel

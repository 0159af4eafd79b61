"""RabbitMQ, behind the protocol that the rest of the code knows.

Publishing and consuming have a connection each (`broker.rabbit.connection`), consumers are
subscriptions that outlive connections (`broker.rabbit.subscription`). Works alike on RabbitMQ 3.10 to
4.x: classic durable or quorum queues, prefetch per consumer, no argument that one of them lacks.
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
    StateListener,
    TakenTask,
    Topology,
    check_publishable,
)
from broker.rabbit import topology as server
from broker.rabbit.connection import CONNECTED, RabbitConnection
from broker.rabbit.consumer import RabbitConsumer
from broker.rabbit.pika_setup import make_parameters, prepare_pika
from broker.rabbit.subscription import Subscription
from broker.single_task import SingleTask
from common.errors import BrokerError

PUBLISH_SECONDS = 60.0
CONTROL_SECONDS = 10.0
PROBE_SECONDS = 5.0

T = TypeVar("T")


class RabbitBroker:
    """One user's connections to RabbitMQ; implements `broker.protocol.Broker`.

    Args:
        url: amqp:// or amqps://, with user and password.
        on_state: Told of every change: "connected", "lost: …", "waiting: …". Called from the
            connections' threads; must return soon.
        publish_seconds: How long a publish waits for a lost connection to come back.
        ca: Certificates (PEM file) that may vouch for an amqps:// server; the system's without.

    Raises:
        BrokerError: RabbitMQ cannot be reached, or refuses the user; comes within seconds.
    """

    def __init__(
        self,
        url: str,
        on_state: StateListener | None = None,
        publish_seconds: float = PUBLISH_SECONDS,
        ca: str | None = None,
    ) -> None:
        prepare_pika()
        parameters = make_parameters(url, ca)
        self._user = str(parameters.credentials.username)
        self._publish_seconds = publish_seconds
        self._states = _States(on_state)
        self._publish_channel: BlockingChannel | None = None
        self._probing: Future[object] | None = None
        self._closed = False
        self._publishing = RabbitConnection(parameters, "publish", self._states.of("publish"))
        self._consuming = RabbitConnection(parameters, "consume", self._states.of("consume"))
        self._consumers: set[RabbitConsumer] = set()
        self._lock = threading.Lock()
        self._consuming.start()
        try:
            self._publishing.start()
        except BrokerError:
            self._consuming.close()
            raise

    def declare(self, topology: Topology) -> None:
        """See `Broker.declare`."""
        self._control(lambda connection: server.declare(connection, topology))

    def delete(self, topology: Topology) -> None:
        """See `Broker.delete`."""
        self._control(lambda connection: server.delete(connection, topology))

    def depths(self, topology: Topology) -> Mapping[str, QueueDepth]:
        """See `Broker.depths`."""
        return self._control(lambda connection: server.depths(connection, topology))

    @property
    def connections(self) -> int:
        """See `Broker.connections`."""
        return self._publishing.connections + self._consuming.connections

    def repair(self, topology: Topology) -> tuple[str, ...]:
        """See `Broker.repair`."""
        queues = self._control(lambda connection: server.missing_queues(connection, topology))
        exchanges = self._control(lambda connection: server.missing_exchanges(connection, topology))
        whole = [
            site
            for site in topology.sites
            if topology.update_queue(site) not in queues
            and topology.update_exchange(site) not in exchanges
        ]
        bindings = self._missing_bindings(topology, whole)
        self.declare(topology)
        return (
            *(f"queue {name}" for name in queues),
            *(f"exchange {name}" for name in exchanges),
            *(f"binding of queue {name}" for name in bindings),
        )

    def _missing_bindings(self, topology: Topology, sites: Iterable[Site]) -> list[str]:
        """Return the update queues without a binding; none where the broker takes no messages.

        A broker in alarm does not read from the publishing connection. The caller must not wait
        for that, since the updates that it would take meanwhile are what relieves the broker.
        """
        if self._probing is not None and not self._probing.done():
            return []

        def probe(connection: BlockingConnection) -> list[str]:
            channel = self._confirming_channel(connection)
            return server.missing_bindings(channel, topology, sites, self._user)

        self._probing = self._publishing.attempt(probe)
        try:
            return self._probing.result(PROBE_SECONDS)  # type: ignore[return-value]  # as above
        except TimeoutError:
            return []

    def publish_task(self, topology: Topology, site: Site, message: Message) -> None:
        """See `Broker.publish_task`."""
        self._publish("", topology.task_queue(site), message)

    def publish_update(self, topology: Topology, site: Site, message: Message) -> None:
        """See `Broker.publish_update`."""
        self._publish(topology.update_exchange(site), "", message)

    def consume_updates(self, topology: Topology, sites: Iterable[Site], prefetch: int) -> Consumer:
        """See `Broker.consume_updates`."""
        queues = [topology.update_queue(site) for site in sites]
        subscription = Subscription(
            queues, prefetch, drop=lambda message: server.is_probe(message, self._user)
        )
        return self._consume(subscription, topology)

    def take_task(self, topology: Topology, site: Site, timeout: float) -> TakenTask | None:
        """See `Broker.take_task`."""
        subscription = Subscription([topology.task_queue(site)], 1, once=True)
        consumer = self._consume(subscription, topology)
        delivery = consumer.receive(timeout)
        if subscription.attached or subscription.refusal:
            self._states.wait_for(subscription.refusal)
        if delivery is None:
            consumer.close()
            return None
        consumer.cancel()
        return SingleTask(
            consumer, delivery, lambda message: self.publish_update(topology, site, message)
        )

    def close(self) -> None:
        """See `Broker.close`."""
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
            self._publish("", topology.dead_queue, message)

        with self._lock:
            if self._closed:
                raise BrokerClosed()
            consumer = RabbitConsumer(
                self._consuming, subscription, publish_dead, self._consumers.discard
            )
            self._consumers.add(consumer)
        self._consuming.add(subscription)
        return consumer

    def _control(self, run: Callable[[BlockingConnection], T]) -> T:
        # Not on the publishing connection: a broker in alarm would not answer there.
        return self._consuming.call(run, CONTROL_SECONDS)

    def _publish(self, exchange: str, routing_key: str, message: Message) -> None:
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

        self._publishing.call(send, self._publish_seconds)

    def _confirming_channel(self, connection: BlockingConnection) -> BlockingChannel:
        """The channel for publishing; only the publishing link's thread comes here."""
        channel = self._publish_channel
        if channel is None or channel.connection is not connection or not channel.is_open:
            channel = connection.channel()
            channel.confirm_delivery()
            self._publish_channel = channel
        return channel


class _States:
    """Joins the states of both connections into one, and tells of changes only."""

    def __init__(self, listener: StateListener | None) -> None:
        self._listener = listener
        self._lock = threading.Lock()
        self._links: dict[str, str] = {}
        self._waiting_for = ""
        self._told = ""

    def of(self, link: str) -> StateListener:
        """The listener for one link."""

        def listen(state: str) -> None:
            with self._lock:
                self._links[link] = state
                self._tell()

        return listen

    def wait_for(self, reason: str) -> None:
        """Connected, but there is nothing to take from; empty when there is again."""
        with self._lock:
            self._waiting_for = reason
            self._tell()

    def _tell(self) -> None:
        lost = [state for state in self._links.values() if state != CONNECTED]
        waiting = f"waiting: {self._waiting_for}" if self._waiting_for else CONNECTED
        state = lost[0] if lost else waiting
        if state != self._told and self._listener is not None:
            self._told = state
            self._listener(state)

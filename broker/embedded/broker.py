"""The broker within one process: `fccl demo`, simulations and tests need nothing installed.

It keeps the promises of RabbitMQ that the rest of the code relies on: messages are stored as
bytes and parsed again at each delivery, an unanswered message returns to its place when its
consumer closes, a full queue refuses, and every message carries its sender. So a test that passes
here says something about RabbitMQ. Nothing survives the process. The queues themselves are in
`broker.embedded.server`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from broker.dead_letter import dead_letter
from broker.embedded.server import EmbeddedServer, StoredMessage, StoredQueue
from broker.protocol import (
    BrokerClosed,
    Consumer,
    Delivery,
    Message,
    QueueDepth,
    Site,
    Tag,
    TakenTask,
    Topology,
)
from broker.single_task import SingleTask
from common.errors import BrokerError
from common.protocol.naming import LOCAL_SITE

__all__ = ["EmbeddedBroker", "EmbeddedServer"]


class EmbeddedConsumer:
    """A consumer of several queues, with at most `prefetch` unanswered messages of each."""

    def __init__(
        self,
        server: EmbeddedServer,
        queues: Iterable[str],
        prefetch: int,
        dead_queue: str,
        user: str,
    ) -> None:
        self._server = server
        self._waiting_queues = list(queues)
        self._prefetch = prefetch
        self._dead_queue = dead_queue
        self._user = user
        self._unanswered: dict[int, tuple[str, StoredQueue, StoredMessage]] = {}
        self._closed = False
        with server.changed:
            server.consumers.add(self)

    @property
    def queues(self) -> frozenset[str]:
        return frozenset(self._waiting_queues)

    @property
    def is_closed(self) -> bool:
        return self._closed

    def receive(self, timeout: float) -> Delivery | None:
        with self._server.changed:
            self._server.changed.wait_for(lambda: self._closed or self._next_queue(), timeout)
            if self._closed:
                raise BrokerClosed()
            name = self._next_queue()
            return None if name is None else self._deliver(name)

    def _next_queue(self) -> str | None:
        for name in self._waiting_queues:
            queue = self._server.queues.get(name)
            if queue is None or not queue.ready:
                continue
            if sum(each is queue for _, each, _ in self._unanswered.values()) < self._prefetch:
                return name
        return None

    def _deliver(self, name: str) -> Delivery:
        # The queue moves to the end, so that a busy site does not starve the others.
        self._waiting_queues.remove(name)
        self._waiting_queues.append(name)
        queue = self._server.queues[name]
        stored = queue.pop()
        number = next(self._server.numbers)
        self._unanswered[number] = (name, queue, stored)
        return Delivery(stored.message(), name, stored.redelivered, Tag(0, number))

    def ack(self, delivery: Delivery) -> None:
        with self._server.changed:
            self._unanswered.pop(delivery.tag.number, None)
            # There is room below the prefetch limit, for which another thread may be waiting.
            self._server.changed.notify_all()

    def reject(self, delivery: Delivery, reason: str) -> None:
        self._server.publish(self._dead_queue, dead_letter(delivery, reason), self._user)
        self.ack(delivery)

    def requeue(self, delivery: Delivery) -> None:
        with self._server.changed:
            self._give_back(delivery.tag.number)
            self._server.changed.notify_all()

    def cancel(self) -> None:
        """Stop receiving; deliveries may still be answered."""
        with self._server.changed:
            self._waiting_queues.clear()

    def close(self) -> None:
        with self._server.changed:
            for number in list(self._unanswered):
                self._give_back(number)
            self._closed = True
            self._server.consumers.discard(self)
            self._server.changed.notify_all()

    def _give_back(self, number: int) -> None:
        if number in self._unanswered:
            _, queue, stored = self._unanswered.pop(number)
            stored.redelivered = True
            queue.push(stored)


class EmbeddedBroker:
    """One user's connection to an `EmbeddedServer`; implements `broker.protocol.Broker`.

    Without a `server` it has queues of its own.
    """

    def __init__(self, server: EmbeddedServer | None = None, user: str = LOCAL_SITE) -> None:
        self._server = server or EmbeddedServer()
        self._user = user
        self._consumers: list[EmbeddedConsumer] = []
        self._closed = False

    def declare(self, topology: Topology) -> None:
        limits = {topology.update_queue(site): topology.update_bytes for site in topology.sites}
        with self._open() as queues:
            for name in topology.queues:
                limit = limits.get(name, 0)
                if queues.setdefault(name, StoredQueue(limit)).limit != limit:
                    raise BrokerError(
                        f"queue {name} exists with another byte limit than {limit}",
                        "keep the run's limit, or start a new run",
                    )
            self._server.changed.notify_all()

    @property
    def connections(self) -> int:
        return 1

    @property
    def blocked(self) -> str:
        return ""

    def repair(self, topology: Topology) -> tuple[str, ...]:
        with self._open() as queues:
            missing = tuple(f"queue {name}" for name in topology.queues if name not in queues)
        self.declare(topology)
        return missing

    def delete(self, topology: Topology) -> None:
        with self._open() as queues:
            for name in topology.queues:
                if name in queues and not (name == topology.dead_queue and queues[name].ready):
                    del queues[name]

    def publish_task(self, topology: Topology, site: Site, message: Message) -> None:
        with self._open():
            self._server.publish(topology.task_queue(site), message, self._user)

    def publish_update(self, topology: Topology, site: Site, message: Message) -> None:
        with self._open():
            self._server.publish(topology.update_queue(site), message, self._user)

    def consume_updates(self, topology: Topology, sites: Iterable[Site], prefetch: int) -> Consumer:
        queues = [topology.update_queue(site) for site in sites]
        return self._consume(queues, prefetch, topology.dead_queue)

    def take_task(self, topology: Topology, site: Site, timeout: float) -> TakenTask | None:
        consumer = self._consume([topology.task_queue(site)], 1, topology.dead_queue)
        delivery = consumer.receive(timeout)
        if delivery is None:
            consumer.close()
            return None
        consumer.cancel()
        return SingleTask(
            consumer, delivery, lambda message: self.publish_update(topology, site, message)
        )

    def depths(self, topology: Topology) -> Mapping[str, QueueDepth]:
        with self._open() as queues:
            return {
                name: QueueDepth(
                    messages=len(queues[name].ready),
                    consumers=sum(name in each.queues for each in self._server.consumers),
                )
                for name in topology.queues
                if name in queues
            }

    def close(self) -> None:
        with self._server.changed:
            self._closed = True
            for consumer in self._consumers:
                consumer.close()
            self._consumers.clear()

    def _consume(self, queues: list[str], prefetch: int, dead_queue: str) -> EmbeddedConsumer:
        with self._open():
            consumer = EmbeddedConsumer(self._server, queues, prefetch, dead_queue, self._user)
            # Drop those that their owner has closed: they would pile up, one for each task.
            self._consumers = [each for each in self._consumers if not each.is_closed]
            self._consumers.append(consumer)
            return consumer

    @contextmanager
    def _open(self) -> Iterator[dict[str, StoredQueue]]:
        """Hold the server's lock and yield its queues, unless this broker is closed."""
        with self._server.changed:
            if self._closed:
                raise BrokerClosed()
            yield self._server.queues

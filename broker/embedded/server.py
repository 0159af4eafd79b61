"""The queues that several `broker.embedded.broker.EmbeddedBroker`s share."""

from __future__ import annotations

import heapq
import itertools
import json
import threading
from dataclasses import dataclass, field
from typing import Protocol

from broker.protocol import Message, QueueFull, QueueMissing, check_publishable


class Receiver(Protocol):
    """A consumer, as far as the depth of a queue depends on it."""

    @property
    def queues(self) -> frozenset[str]:
        """Names of the queues from which it receives."""


@dataclass(order=True)
class StoredMessage:
    """A message as bytes, ordered by arrival, so that a returned one gets its old place back."""

    number: int
    properties: bytes = field(compare=False)
    body: bytes = field(compare=False)
    redelivered: bool = field(default=False, compare=False)

    def message(self) -> Message:
        headers, user_id, message_id = json.loads(self.properties)
        return Message(self.body, headers, user_id, message_id)


@dataclass
class StoredQueue:
    """Ready messages, a heap by arrival."""

    limit: int  # of their bytes; 0 for none
    ready: list[StoredMessage] = field(default_factory=list)
    ready_bytes: int = 0

    def push(self, stored: StoredMessage) -> None:
        heapq.heappush(self.ready, stored)
        self.ready_bytes += len(stored.body)

    def pop(self) -> StoredMessage:
        """Remove and return the oldest message."""
        stored = heapq.heappop(self.ready)
        self.ready_bytes -= len(stored.body)
        return stored


class EmbeddedServer:
    """The queues that several `EmbeddedBroker`s of one process share.

    `changed` guards everything inside; it is notified whenever a waiting consumer may continue.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.queues: dict[str, StoredQueue] = {}
        self.consumers: set[Receiver] = set()
        self.numbers = itertools.count(1)

    def publish(self, queue_name: str, message: Message, user: str) -> None:
        """Store a message with its sender's name.

        Raises:
            BrokerError: The message is too large or names another sender.
            QueueFull: The queue is at its limit of bytes.
            QueueMissing: There is no such queue.
        """
        check_publishable(message, user)
        properties = json.dumps([dict(message.headers), user, message.message_id]).encode()
        with self.changed:
            queue = self.queues.get(queue_name)
            if queue is None:
                raise QueueMissing(
                    f"queue {queue_name} does not exist", "start the coordinator of this run"
                )
            if queue.limit and queue.ready_bytes + len(message.body) > queue.limit:
                raise QueueFull(f"queue {queue_name} is at its limit of {queue.limit} bytes")
            queue.push(StoredMessage(next(self.numbers), properties, bytes(message.body)))
            self.changed.notify_all()

"""The interface of a message broker, which coordinator and workers use.

Two modules implement it: `broker.embedded.broker` within one process and `broker.rabbit.broker`
over RabbitMQ; `tests/contract` holds both to the same promises. A broker knows bytes and flat
headers, not records: `common.protocol.wire` defines what a body means, and `broker.chunks` splits
a large update into messages.

Delivery is *at least once*. A publish returns when the broker has made the message safe; if the
connection is lost before that, the message is published again, so receivers recognise duplicates
by their own ids. All methods may be called from any thread. Times are in seconds, sizes in bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, Protocol

from common.errors import BrokerError, ConfigError, WireError
from common.protocol.naming import LOCAL_SITE

Headers = Mapping[str, str | int]
QueueType = Literal["classic", "quorum"]

MAX_HEADERS = 32
MAX_HEADER_CHARS = 2048
MAX_BODY_BYTES = 16 << 20
"""The largest body that every supported broker accepts: the default limit of RabbitMQ 4."""
UPDATE_QUEUE_BYTES = 1 << 30
"""Default limit of one site's update queue: a flood fills no more than its sender's quota."""

_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
_SITE = re.compile(r"[a-z0-9-]{1,32}\Z")


class BrokerState(Enum):
    """What the connection to a broker is doing; the values are for people."""

    CONNECTED = "connected"
    LOST = "lost"
    WAITING = "waiting"
    BLOCKED = "blocked"


@dataclass(frozen=True)
class BrokerStatus:
    """The state of the connection to a broker.

    `detail` says why it was lost, which queue a worker waits for, or why the broker takes no
    messages; empty when connected.
    """

    state: BrokerState
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.state.value}: {self.detail}" if self.detail else self.state.value


StatusListener = Callable[[BrokerStatus], None]


class BrokerBlocked(BrokerError):
    """The broker takes no messages from any publisher, because it lacks memory or disk."""


class QueueFull(BrokerError):
    """The broker refused a message because the queue is at its byte limit; try again later."""


class QueueMissing(BrokerError):
    """No queue exists for a message: the coordinator has not declared the run here."""


class BrokerClosed(BrokerError):
    """The broker or consumer was closed by its own process."""

    def __init__(self) -> None:
        super().__init__("the broker connection was closed by this process")


@dataclass(frozen=True)
class Message:
    """A body and its headers.

    Attributes:
        body: At most 16 MiB, which publishing checks; larger updates go in chunks.
        headers: At most 32 strings (2,048 characters) and 64-bit integers.
        user_id: On a received message, the sender as verified by the broker, or None where the
            sender left it out: treat that as a forgery. Leave it out when publishing.
        message_id: At most 255 bytes; for people and logs.

    Raises:
        WireError: The headers or the id are not allowed.
    """

    body: bytes
    headers: Headers = field(default_factory=dict)
    user_id: str | None = None
    message_id: str = ""

    def __post_init__(self) -> None:
        if len(self.headers) > MAX_HEADERS:
            raise WireError(f"message has {len(self.headers)} headers, more than {MAX_HEADERS}")
        for name, value in self.headers.items():
            if not header_fits(name, value):
                raise WireError(f"header {name!r:.80} is not a short string or a 64-bit integer")
        if len(self.message_id.encode("utf-8", "replace")) > 255:
            raise WireError("message id is longer than 255 bytes")


def check_publishable(message: Message, user: str) -> None:
    """Raise `BrokerError` for a body that is too large, or for another sender than `user`."""
    if len(message.body) > MAX_BODY_BYTES:
        raise BrokerError(
            f"a message of {len(message.body)} bytes is above the limit of {MAX_BODY_BYTES}",
            "send it in chunks (broker.chunks)",
        )
    if message.user_id not in (None, user):
        raise BrokerError(f"user {user!r} cannot publish as {message.user_id!r:.80}")


def header_fits(name: object, value: object) -> bool:
    """Return whether a header is a short name with a short string or a 64-bit integer."""
    if not (isinstance(name, str) and 0 < len(name) <= 60 and _is_text(name)):
        return False
    if isinstance(value, str):
        return len(value) <= MAX_HEADER_CHARS and _is_text(value)
    # bool is an int in Python, and a type of its own in AMQP.
    return type(value) is int and -(1 << 63) <= value < 1 << 63


def _is_text(value: str) -> bool:
    """Return whether the string can be encoded as UTF-8: a lone surrogate cannot."""
    return value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value)


@dataclass(frozen=True)
class Tag:
    """Identifier of a delivery, for the broker that made it.

    Delivery tags start again on each connection, so without the generation an old one would
    acknowledge some other message.
    """

    generation: int
    number: int


@dataclass(frozen=True)
class Delivery:
    """A received message that must be answered with ack, reject or requeue."""

    message: Message
    queue: str
    redelivered: bool
    tag: Tag


@dataclass(frozen=True)
class QueueDepth:
    """Number of ready messages (without those delivered and not yet acked) and of consumers."""

    messages: int
    consumers: int


@dataclass(frozen=True)
class Site:
    """One credential: a user with a task queue, an update exchange and an update queue.

    Raises:
        ConfigError: The name is not 1 to 32 of a-z, 0-9 and '-'.
    """

    name: str

    def __post_init__(self) -> None:
        if not _SITE.match(self.name):
            raise ConfigError(
                f"site name {self.name!r:.80} is not valid", "use 1 to 32 of a-z, 0-9 and '-'"
            )


LOCAL = Site(LOCAL_SITE)


@dataclass(frozen=True)
class Topology:
    """The names of a run's queues and exchanges. Only the coordinator declares them.

    Attributes:
        run: Id of the run: up to 64 letters, digits, '_' and '-'. A dot is not allowed, so that
            the names of two runs never collide.
        update_bytes: Limit of ready bytes in one site's update queue. A quorum queue refuses a
            moment late, and then until a fifth of it is free again.
        queue_type: `quorum` replicates every queue over the nodes of a cluster; used by `declare`
            only.

    Raises:
        ConfigError: The run's id is not valid, a site is named twice, or the limit is not
            positive.
    """

    run: str
    sites: tuple[Site, ...] = (LOCAL,)
    update_bytes: int = UPDATE_QUEUE_BYTES
    queue_type: QueueType = "classic"

    def __post_init__(self) -> None:
        if not _RUN.match(self.run):
            raise ConfigError(
                f"run id {self.run!r:.80} is not valid",
                "use up to 64 letters, digits, '_' and '-', a letter or digit first",
            )
        if not self.sites or len(set(self.sites)) != len(self.sites):
            raise ConfigError(f"run {self.run} needs sites with distinct names")
        if self.update_bytes <= 0:
            raise ConfigError(f"update queue limit is {self.update_bytes} bytes", "raise it")

    def task_queue(self, site: Site) -> str:
        """Return the name of the queue from which the site's workers take tasks."""
        return f"fccl.{self.run}.tasks.{site.name}"

    def update_exchange(self, site: Site) -> str:
        """Return the fanout exchange to which the site's workers publish; named like its queue."""
        return self.update_queue(site)

    def update_queue(self, site: Site) -> str:
        """Return the byte-limited queue from which the coordinator takes the site's updates."""
        return f"fccl.{self.run}.updates.{site.name}"

    @property
    def dead_queue(self) -> str:
        """The queue of rejected messages, each with the reason."""
        return f"fccl.{self.run}.dead"

    @property
    def queues(self) -> tuple[str, ...]:
        """All queue names: tasks, updates, dead letters."""
        tasks = (self.task_queue(site) for site in self.sites)
        updates = (self.update_queue(site) for site in self.sites)
        return (*tasks, *updates, self.dead_queue)


class Consumer(Protocol):
    """A stream of deliveries, each to be answered once by ack, reject or requeue.

    After a lost connection it continues by itself: deliveries without an answer come again, and an
    answer to a delivery from before the loss has no effect.
    """

    def receive(self, timeout: float) -> Delivery | None:
        """Return the next delivery, or None after `timeout` seconds.

        Raises:
            BrokerClosed: The consumer or its broker was closed.
        """

    def ack(self, delivery: Delivery) -> None:
        """Confirm that the message is safe elsewhere, so that the broker may forget it."""

    def reject(self, delivery: Delivery, reason: str) -> None:
        """Move the message to the dead-letter queue with the reason (see `broker.dead_letter`).

        Raises:
            BrokerError: The dead letter could not be published; the delivery stays unanswered.
        """

    def requeue(self, delivery: Delivery) -> None:
        """Return the message to its queue; it is delivered again, to any consumer."""

    def close(self) -> None:
        """Send the answers given so far, and return all other deliveries to their queues."""


class TakenTask(Protocol):
    """The message that `Broker.take_task` took. Answer it once, and before training."""

    @property
    def message(self) -> Message:
        """The task's message."""

    @property
    def redelivered(self) -> bool:
        """Whether the broker has delivered it before."""

    def ack(self) -> None:
        """Confirm that the task is safe here. After a lost connection it comes again."""

    def reject(self, reason: str) -> None:
        """Send the task to the coordinator, on the site's update queue, with the reason.

        It carries the headers of `broker.dead_letter`; the coordinator makes it a dead letter.

        Raises:
            BrokerError: It could not be published; the task stays unanswered.
        """

    def requeue(self) -> None:
        """Return the task to its queue."""


class Broker(Protocol):
    """A connection to a message broker on behalf of one user."""

    def declare(self, topology: Topology) -> None:
        """Declare the run's queues, exchanges and bindings; existing ones stay as they are.

        Raises:
            BrokerError: They exist with other properties, or this user may not declare them.
        """

    @property
    def connections(self) -> int:
        """Number of times that this broker has connected; it grows with every reconnect."""

    @property
    def blocked(self) -> str:
        """Why the broker takes no messages at present, with a remedy; empty while it does."""

    def repair(self, topology: Topology) -> tuple[str, ...]:
        """Declare again what the server has lost; return what was missing, for people.

        A declared queue, exchange or binding may be lost: RabbitMQ that is killed just after it
        has confirmed one can come back without it, and an operator can delete it.

        Raises:
            BrokerError: It cannot be declared again, or the broker is out of reach.
        """

    def delete(self, topology: Topology) -> None:
        """Delete the run's queues and exchanges with their content.

        A dead-letter queue with messages stays. Missing queues are no error.
        """

    def publish_task(self, topology: Topology, site: Site, message: Message) -> None:
        """Publish a task to the site's queue; return when the broker has confirmed it.

        Raises:
            QueueMissing: The run is not declared.
            BrokerBlocked: The broker is in alarm; the message may still arrive later.
            BrokerError: The broker refused it, or could not be reached before the deadline.
        """

    def publish_update(self, topology: Topology, site: Site, message: Message) -> None:
        """Publish to the site's update queue; return when the broker has confirmed it.

        Raises:
            QueueFull: The queue is at its limit of bytes.
            QueueMissing: The run is not declared.
            BrokerError: The broker refused it, or could not be reached before the deadline.
        """

    def consume_updates(self, topology: Topology, sites: Iterable[Site], prefetch: int) -> Consumer:
        """Receive from the update queues of these sites.

        `prefetch` limits the unanswered messages that the broker delivers *per site*.
        """

    def take_task(self, topology: Topology, site: Site, timeout: float) -> TakenTask | None:
        """Take exactly one task; no other message is fetched or held, then or afterwards.

        Returns:
            The task, or None after `timeout` seconds without a task, a connection, or the queue
            (the status listener is called with the reason).

        Raises:
            BrokerClosed: The broker was closed.
        """

    def depths(self, topology: Topology) -> Mapping[str, QueueDepth]:
        """Return the depth of each of the run's queues that exists, by queue name."""

    def close(self) -> None:
        """Finish running publishes, close all consumers and disconnect. May be repeated."""

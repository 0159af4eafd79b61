"""What a message broker does for a run, whichever broker it is.

The coordinator and the workers speak only to these types. Two modules implement them:
`broker.embedded.broker` inside one process, `broker.rabbit.broker` over RabbitMQ; `tests/contract` holds both
to the same promises. A broker knows bytes and flat headers, never records: what a body means is
decided by `common.protocol.wire`, and a large update is cut into messages by `broker.chunks`.

Delivery is *at least once*. A publish returns when the broker has made the message safe; when
the connection is lost before that, it is published again, so receivers recognise duplicates by
their own ids. All methods may be called from any thread. Times are seconds, sizes are bytes.
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
"""The largest body that every supported broker takes: RabbitMQ 4's default limit."""
UPDATE_QUEUE_BYTES = 1 << 30
"""Default limit of one site's update queue: a flood fills its sender's own quota and no more."""

_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
_SITE = re.compile(r"[a-z0-9-]{1,32}\Z")


class BrokerState(Enum):
    """What the connection to a broker is doing; the values are for people."""

    CONNECTED = "connected"
    LOST = "lost"
    WAITING = "waiting"


@dataclass(frozen=True)
class BrokerStatus:
    """The state of the connection to a broker, and its cause.

    Attributes:
        detail: Why the connection was lost, or which queue a worker waits for; empty when
            connected.
    """

    state: BrokerState
    detail: str = ""

    def __str__(self) -> str:
        """Return "connected", "lost: …" or "waiting: …"."""
        return f"{self.state.value}: {self.detail}" if self.detail else self.state.value


StatusListener = Callable[[BrokerStatus], None]


class QueueFull(BrokerError):
    """The queue's byte limit would be passed: the broker refused the message. Try again later."""


class QueueMissing(BrokerError):
    """No queue takes this message: the coordinator has not declared the run here."""


class BrokerClosed(BrokerError):
    """This broker or consumer was closed by its own process."""

    def __init__(self) -> None:
        super().__init__("the broker connection was closed by this process")


@dataclass(frozen=True)
class Message:
    """A body and its headers.

    Attributes:
        body: At most 16 MiB, which publishing checks; larger updates go in chunks.
        headers: At most 32 strings (2,048 characters) and 64-bit integers.
        user_id: On a received message, the user whom the broker vouches for, or None where the
            sender left it out: treat that as a forgery. Leave it out to publish.
        message_id: At most 255 bytes; for people and logs.

    Raises:
        WireError: The headers or the id cannot travel.
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
    """Refuse what a broker would refuse, with a reason that names it.

    Raises:
        BrokerError: The body is too large, or the message claims to come from someone else.
    """
    if len(message.body) > MAX_BODY_BYTES:
        raise BrokerError(
            f"message of {len(message.body)} bytes passes the broker's {MAX_BODY_BYTES}",
            "send it in chunks (broker.chunks)",
        )
    if message.user_id not in (None, user):
        raise BrokerError(f"user {user!r} cannot publish as {message.user_id!r:.80}")


def header_fits(name: object, value: object) -> bool:
    """Whether a header may travel: a short name, and a string or a 64-bit integer."""
    if not (isinstance(name, str) and 0 < len(name) <= 60 and _is_text(name)):
        return False
    if isinstance(value, str):
        return len(value) <= MAX_HEADER_CHARS and _is_text(value)
    # bool is an int in Python, and a type of its own in AMQP.
    return type(value) is int and -(1 << 63) <= value < 1 << 63


def _is_text(value: str) -> bool:
    """Whether the string has a UTF-8 form: a lone surrogate has none."""
    return value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value)


@dataclass(frozen=True)
class Tag:
    """Names a delivery to the broker that made it; nobody else looks inside.

    A delivery tag counts anew on each connection, so without the generation an old one would
    acknowledge some other message.
    """

    generation: int
    number: int


@dataclass(frozen=True)
class Delivery:
    """A received message that waits for its ack, reject or requeue."""

    message: Message
    queue: str
    redelivered: bool
    tag: Tag


@dataclass(frozen=True)
class QueueDepth:
    """Messages that are ready (those delivered and not acked do not count), and consumers."""

    messages: int
    consumers: int


@dataclass(frozen=True)
class Site:
    """One credential: its user, its task queue, its update exchange and queue.

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
    """The names of a run's queues. Only the coordinator declares them.

    Attributes:
        run: The run's id: up to 64 letters, digits, '_' and '-'. No dot, so that no run's names
            can be another run's.
        sites: Whom the run serves.
        update_bytes: Ready bytes that one site's update queue may hold before it refuses more.
            A quorum queue refuses a moment late, and then until a fifth of it is free again.
        queue_type: `quorum` replicates every queue over the nodes of a cluster. Only declaring
            looks at it.

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
        """The queue from which the site's workers take tasks."""
        return f"fccl.{self.run}.tasks.{site.name}"

    def update_exchange(self, site: Site) -> str:
        """The fanout exchange to which the site's workers publish; named like its queue."""
        return self.update_queue(site)

    def update_queue(self, site: Site) -> str:
        """The byte-limited queue from which the coordinator takes the site's updates."""
        return f"fccl.{self.run}.updates.{site.name}"

    @property
    def dead_queue(self) -> str:
        """The queue that keeps what was rejected, with the reason."""
        return f"fccl.{self.run}.dead"

    @property
    def queues(self) -> tuple[str, ...]:
        """All queue names: tasks, updates, dead letters."""
        tasks = (self.task_queue(site) for site in self.sites)
        updates = (self.update_queue(site) for site in self.sites)
        return (*tasks, *updates, self.dead_queue)


class Consumer(Protocol):
    """A stream of deliveries, each to be answered once by ack, reject or requeue.

    After a lost connection it goes on by itself; what was delivered and not yet answered comes
    again, and an answer to a delivery from before the loss does nothing.
    """

    def receive(self, timeout: float) -> Delivery | None:
        """The next delivery, or None after `timeout` seconds.

        Raises:
            BrokerClosed: The consumer or its broker was closed.
        """

    def ack(self, delivery: Delivery) -> None:
        """The message is safe elsewhere: the broker may forget it."""

    def reject(self, delivery: Delivery, reason: str) -> None:
        """Move the message to the dead-letter queue with the reason (see `broker.dead_letter`).

        Raises:
            BrokerError: The dead letter could not be published; the delivery stays unanswered.
        """

    def requeue(self, delivery: Delivery) -> None:
        """Give the message back; it is delivered again, to anyone."""

    def close(self) -> None:
        """Stop; answers given before are sent, everything unanswered goes back to its queue."""


class TakenTask(Protocol):
    """The one message that `Broker.take_task` took. Answer it once, soon, and before training."""

    @property
    def message(self) -> Message:
        """The task's message."""

    @property
    def redelivered(self) -> bool:
        """Whether the broker has delivered it before."""

    def ack(self) -> None:
        """The task is safe on this side. If the connection was lost meanwhile, it comes again."""

    def reject(self, reason: str) -> None:
        """Hand it to the coordinator, on the site's update queue, with the reason.

        It carries the headers of `broker.dead_letter`, and becomes a dead letter there.

        Raises:
            BrokerError: It could not be published; the task stays unanswered.
        """

    def requeue(self) -> None:
        """Give it back to the queue."""


class Broker(Protocol):
    """A connection to a message broker on behalf of one user."""

    def declare(self, topology: Topology) -> None:
        """Make the run's queues and exchanges; existing ones of the same kind stay as they are.

        Raises:
            BrokerError: They exist with other properties, or this user may not make them.
        """

    def delete(self, topology: Topology) -> None:
        """Remove the run's queues and exchanges and what is in them.

        A dead-letter queue that holds something stays. Missing ones are no error.
        """

    def publish_task(self, topology: Topology, site: Site, message: Message) -> None:
        """Put a task on the site's queue; returns when the broker has confirmed it.

        Raises:
            QueueMissing: The run is not declared.
            BrokerError: The broker refused it, or could not be reached before the deadline.
        """

    def publish_update(self, topology: Topology, site: Site, message: Message) -> None:
        """Put a message on the site's update queue; returns when the broker has confirmed it.

        Raises:
            QueueFull: The queue holds its limit of bytes.
            QueueMissing: The run is not declared.
            BrokerError: The broker refused it, or could not be reached before the deadline.
        """

    def consume_updates(self, topology: Topology, sites: Iterable[Site], prefetch: int) -> Consumer:
        """Receive from the update queues of all these sites.

        Args:
            topology: The run.
            sites: Whose queues.
            prefetch: Unanswered messages that the broker hands out *per site* at most.
        """

    def take_task(self, topology: Topology, site: Site, timeout: float) -> TakenTask | None:
        """Take exactly one task; nothing else is fetched or held meanwhile or afterwards.

        Returns:
            The task, or None after `timeout` seconds: no task, no connection, or no such queue
            yet (the state listener is told which).

        Raises:
            BrokerClosed: The broker was closed.
        """

    def depths(self, topology: Topology) -> Mapping[str, QueueDepth]:
        """The depth of each of the run's queues that exists, by queue name."""

    def close(self) -> None:
        """Finish the publishes that run, close all consumers, disconnect. May be repeated."""

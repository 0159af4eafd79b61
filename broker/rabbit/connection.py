"""One RabbitMQ connection, owned by one thread that keeps it alive and reconnects.

pika's connections are not thread-safe, and one whose owner is busy misses heartbeats and is
closed. So no caller ever touches the connection: callers hand jobs to its thread, which runs them
between reads of the socket. `broker.rabbit.broker` uses one connection for publishing and another
for consuming, because a broker in alarm stops reading from connections that publish.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

import pika
from pika import exceptions as pika_errors
from pika.adapters.blocking_connection import BlockingConnection

from broker.protocol import BrokerClosed, BrokerState, BrokerStatus, StatusListener
from broker.rabbit.alarm import blocked_error, watch_alarms
from broker.rabbit.errors import channel_error, connect_error, describe
from broker.rabbit.subscription import Subscription
from common.errors import BrokerError

FIRST_BACKOFF_SECONDS = 0.2
MAX_BACKOFF_SECONDS = 5.0
STEADY_SECONDS = 10.0
"""A connection that lasted this long resets the back-off."""
CLOSE_SECONDS = 15.0
ALARM_POLL_SECONDS = 0.2

T = TypeVar("T")


@dataclass
class _Job:
    """Work for the connection's thread.

    Attributes:
        durable: Run it again after a reconnect, until `deadline`; otherwise it fails.
        deadline: Monotonic seconds.
        tried: Whether it was begun on a connection that was then lost.
    """

    operation: Callable[[BlockingConnection], object]
    durable: bool
    deadline: float
    future: Future[object] = field(default_factory=Future)
    tried: bool = False


class RabbitConnection:
    """A connection that reconnects by itself.

    `on_status` is called from its thread when the connection is made or lost.
    """

    def __init__(
        self, parameters: pika.ConnectionParameters, name: str, on_status: StatusListener
    ) -> None:
        self.where = f"{parameters.host}:{parameters.port}"
        self._parameters = parameters
        self._on_status = on_status
        self._lock = threading.Lock()
        self._jobs: deque[_Job] = deque()
        self._subscriptions: list[Subscription] = []
        self._connection: BlockingConnection | None = None
        self._generations = itertools.count(1)
        self.connections = 0  # made so far
        self._given_up: Future[object] | None = None  # of a call that did not wait for an alarm
        self.blocked = ""  # why the broker takes no messages from this connection; else empty
        self._stop = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"fccl-{name}", daemon=True)

    def start(self) -> None:
        """Connect, and stay connected until `close`.

        Raises:
            BrokerError: The first attempt failed; the message has the address and the remedy.
        """
        first = self._connect()
        if isinstance(first, BrokerError):
            raise first
        self._connection = first
        self._thread.start()

    def call(
        self,
        operation: Callable[[BlockingConnection], T],
        wait_seconds: float,
        patience: float | None = None,
    ) -> T:
        """Run an operation on the connection's thread, and again if the connection is lost.

        Args:
            operation: Must be safe to repeat.
            wait_seconds: Limit of the wait for a lost connection to come back.
            patience: Limit of the wait for a broker in alarm, in seconds; None waits until the
                connection is given up. The operation may still run later.

        Raises:
            BrokerError: The broker refused, or was not reached in time.
            BrokerBlocked: The broker is in alarm.
            BrokerClosed: This connection was closed.
        """
        if patience is not None and self._given_up is not None and not self._given_up.done():
            raise blocked_error(self.where, self.blocked)
        future = self._submit(_Job(operation, True, time.monotonic() + wait_seconds))
        if patience is not None:
            self._await(future, time.monotonic() + patience)
        return future.result()  # type: ignore[return-value]  # the job's own type

    def _await(self, future: Future[object], patient_until: float) -> None:
        while not futures.wait([future], ALARM_POLL_SECONDS).done:
            if self.blocked and time.monotonic() >= patient_until:
                self._given_up = future
                raise blocked_error(self.where, self.blocked)

    def call_if_connected(
        self, operation: Callable[[BlockingConnection], object]
    ) -> Future[object]:
        """Run an operation on the connection's thread if it is connected; otherwise do nothing.

        For acks: once the connection is lost, so is what they would acknowledge.
        """
        return self._submit(_Job(operation, False, 0.0))

    def add(self, subscription: Subscription) -> None:
        """Attach a subscription, now and after every reconnect."""
        with self._lock:
            self._subscriptions.append(subscription)
        self._wake()

    def remove(self, subscription: Subscription) -> None:
        """Close a subscription; return when the broker has its unanswered messages back."""
        subscription.close()
        with self._lock:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
        with contextlib.suppress(BrokerError):
            self.call_if_connected(lambda _: subscription.close_channel()).result()

    def note_accepted(self) -> None:
        """Record that the broker takes messages. For the connection's own thread."""
        if self.blocked:
            self.blocked = ""
            self._report(self._connected_status())

    def close(self) -> None:
        """Finish the waiting jobs if connected, and disconnect."""
        self._stop.set()
        self._wake()
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS)

    def _submit(self, job: _Job) -> Future[object]:
        with self._lock:
            if self._stop.is_set() or self._ended:
                job.future.set_exception(BrokerClosed())
                return job.future
            if not job.durable and self._connection is None:
                job.future.set_exception(BrokerError("not connected"))
                return job.future
            self._jobs.append(job)
        self._wake()
        return job.future

    def _wake(self) -> None:
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(pika_errors.AMQPError):
                connection.add_callback_threadsafe(lambda: None)

    # The rest runs on the connection's own thread.

    def _run(self) -> None:
        failures = 0
        connection: BlockingConnection | BrokerError | None = self._connection
        while not self._stop.is_set():
            since = time.monotonic()
            if isinstance(connection, BlockingConnection):
                reason = self._serve(connection)
                if time.monotonic() - since > STEADY_SECONDS:
                    failures = 0
            else:
                reason = connection.what if connection else "not connected"
            if self._stop.is_set():
                break
            self._report(BrokerStatus(BrokerState.LOST, reason))
            self._expire(time.monotonic(), reason)
            self._stop.wait(full_jitter(failures))
            failures += 1
            connection = None if self._stop.is_set() else self._connect()
        self._end()

    def _connect(self) -> BlockingConnection | BrokerError:
        try:
            connection = BlockingConnection(self._parameters)
            watch_alarms(connection, self._on_blocked, self.note_accepted)
            return connection
        except Exception as error:
            # Besides its own errors, pika lets through those of sockets, ssl and its assertions.
            return connect_error(error, self.where)

    def _serve(self, connection: BlockingConnection) -> str:
        """Use the connection until it is lost or `close` is called, and return why it ended."""
        with self._lock:
            self._connection = connection
            self.connections += 1
        self._report(self._connected_status())
        try:
            while not self._stop.is_set():
                self._run_jobs(connection)
                attached = self._maintain_subscriptions(connection)
                connection.process_data_events(time_limit=5.0 if attached else 0.1)
            self._run_jobs(connection)
            connection.close()
            return "closed"
        except Exception as error:
            return describe(error)
        finally:
            self._disconnected(connection)

    def _maintain_subscriptions(self, connection: BlockingConnection) -> bool:
        with self._lock:
            subscriptions = list(self._subscriptions)
        # A list, not a generator: `all` would stop at the first that is not attached.
        attached = [each.maintain(connection, next(self._generations)) for each in subscriptions]
        return all(attached)

    def _run_jobs(self, connection: BlockingConnection) -> None:
        while job := self._next_job():
            try:
                result = job.operation(connection)
            except Exception as error:
                if connection.is_open:
                    job.future.set_exception(channel_error(error))
                    continue
                job.tried = True
                with self._lock:
                    self._jobs.appendleft(job)
                raise
            job.future.set_result(result)

    def _next_job(self) -> _Job | None:
        with self._lock:
            return self._jobs.popleft() if self._jobs else None

    def _disconnected(self, connection: BlockingConnection) -> None:
        with self._lock:
            self._connection = None
            abandoned = [job for job in self._jobs if not job.durable]
            self._jobs = deque(job for job in self._jobs if job.durable)
            subscriptions = list(self._subscriptions)
        for job in abandoned:
            job.future.set_exception(BrokerError("the connection was lost"))
        for subscription in subscriptions:
            subscription.detach()
        with contextlib.suppress(Exception):
            # After an error inside pika the socket may still be open.
            connection.close()

    def _expire(self, now: float, reason: str) -> None:
        with self._lock:
            late = [job for job in self._jobs if job.deadline <= now]
            self._jobs = deque(job for job in self._jobs if job.deadline > now)
        for job in late:
            doubt = "; the message may have arrived nevertheless" if job.tried else ""
            job.future.set_exception(
                BrokerError(f"RabbitMQ at {self.where} did not confirm: {reason}{doubt}")
            )

    def _end(self) -> None:
        with self._lock:
            self._ended = True
            remaining, self._jobs = self._jobs, deque()
        for job in remaining:
            job.future.set_exception(BrokerClosed())

    def _on_blocked(self, reason: str) -> None:
        # It stays so after a reconnect: nobody is told again before the next message.
        self.blocked = reason
        self._report(self._connected_status())

    def _connected_status(self) -> BrokerStatus:
        if not self.blocked:
            return BrokerStatus(BrokerState.CONNECTED)
        return BrokerStatus(BrokerState.BLOCKED, str(blocked_error(self.where, self.blocked)))

    def _report(self, status: BrokerStatus) -> None:
        # A listener's own error must not end the thread that keeps the heartbeats going.
        with contextlib.suppress(Exception):
            self._on_status(status)


def full_jitter(failures: int) -> float:
    """Return the seconds to wait before the next attempt: random, up to a limit that doubles.

    Many workers lose a broker at the same moment; they must not all come back at the same moment.
    """
    return random.uniform(0, min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0**failures))

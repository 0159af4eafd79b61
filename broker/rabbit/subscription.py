"""A stream of deliveries that survives reconnects.

`broker.rabbit.connection.RabbitConnection` owns the connection and its thread; it attaches each
subscription after every reconnect and calls `maintain` in between. Other threads wait in
`receive`. Methods for the connection's thread say so; everything else is guarded by `_changed`.
"""

from __future__ import annotations

import functools
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import pika
from pika import exceptions as pika_errors
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

from broker.protocol import MAX_HEADERS, BrokerClosed, Delivery, Message, Tag, header_fits
from broker.rabbit.errors import channel_error

MAX_RETRY_SECONDS = 1.0
"""A missing queue appears when the coordinator starts; asking costs one small round trip."""

Acknowledgement = Literal["ack", "requeue"]


class Subscription:
    """A consumer of several queues through one channel.

    Args:
        queues: Names of the queues, which need not exist yet.
        prefetch: Limit of unanswered messages per queue.
        once: Take one message, and never attach again afterwards.
        drop: Called with each message; True acks the message instead of delivering it.
    """

    def __init__(
        self,
        queues: Sequence[str],
        prefetch: int,
        once: bool = False,
        drop: Callable[[Message], bool] = lambda _: False,
    ) -> None:
        self.queues = tuple(queues)
        self._drop = drop
        self._prefetch = prefetch
        self._once = once
        self._changed = threading.Condition()
        self._inbox: deque[Delivery] = deque()
        self._closed = False
        self._attached = False
        self._refusal = ""
        # The rest belongs to the connection's thread.
        self._channel: BlockingChannel | None = None
        self._generation = 0
        self._unanswered: set[int] = set()
        self._finished = False
        self._cancelled = False
        self._retry_at = 0.0

    def receive(self, timeout: float) -> Delivery | None:
        """Return the next delivery, or None after `timeout` seconds; see `Consumer.receive`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._inbox, timeout)
            if self._closed:
                raise BrokerClosed()
            return self._inbox.popleft() if self._inbox else None

    @property
    def attached(self) -> bool:
        """Whether the broker has accepted the consumer."""
        with self._changed:
            return self._attached

    @property
    def refusal(self) -> str:
        """Why the broker did not accept the consumer, e.g. for a missing queue; else empty."""
        with self._changed:
            return self._refusal

    def close(self) -> None:
        """Wake all receivers; the connection closes the channel."""
        with self._changed:
            self._closed = True
            self._inbox.clear()
            self._changed.notify_all()

    def maintain(self, connection: BlockingConnection, generation: int) -> bool:
        """Attach if that is due; return whether nothing is left to do for now.

        Called by the connection's thread. `generation` is a number never used before.
        """
        if self._channel is not None and (self._cancelled or not self._channel.is_open):
            self.close_channel()
            self._retry_later("the broker ended the consumer")
        if self._channel is not None or self._finished or self._closed:
            return True
        if time.monotonic() >= self._retry_at:
            self._attach(connection, generation)
        return self._channel is not None

    def _attach(self, connection: BlockingConnection, generation: int) -> None:
        channel = connection.channel()
        self._generation, self._cancelled = generation, False
        try:
            channel.basic_qos(prefetch_count=self._prefetch)
            channel.add_on_cancel_callback(self._on_cancel)
            for queue in self.queues:
                channel.basic_consume(queue, functools.partial(self._on_message, queue))
        except pika_errors.ChannelClosedByBroker as error:
            self._retry_later(channel_error(error).what)
            return
        self._channel = channel
        with self._changed:
            self._attached, self._refusal = True, ""

    def _retry_later(self, reason: str) -> None:
        self._retry_at = time.monotonic() + random.uniform(0, MAX_RETRY_SECONDS)
        with self._changed:
            self._refusal = reason

    def _on_cancel(self, _method: object) -> None:
        self._cancelled = True

    def _on_message(
        self,
        queue: str,
        channel: BlockingChannel,
        method: pika.spec.Basic.Deliver,
        properties: pika.BasicProperties,
        body: bytes,
    ) -> None:
        number = int(method.delivery_tag)
        message = _message(properties, body)
        if self._drop(message):
            channel.basic_ack(number)
            return
        self._unanswered.add(number)
        self._finished = self._finished or self._once
        tag = Tag(self._generation, number)
        delivery = Delivery(message, queue, bool(method.redelivered), tag)
        with self._changed:
            if not self._closed:
                self._inbox.append(delivery)
                self._changed.notify()

    def answer(self, tag: Tag, answer: Acknowledgement) -> None:
        """Answer a delivery, unless that was done or it belongs to an older channel.

        Called by the connection's thread.
        """
        if self._channel is None or tag.generation != self._generation:
            return
        if tag.number not in self._unanswered:
            # A second answer would make the broker close the channel.
            return
        self._unanswered.discard(tag.number)
        if answer == "ack":
            self._channel.basic_ack(tag.number)
        else:
            self._channel.basic_nack(tag.number, requeue=True)

    def cancel(self) -> None:
        """Stop receiving; deliveries may still be answered. Called by the connection's thread."""
        self._finished = True
        if self._channel is not None and self._channel.is_open:
            for consumer_tag in list(self._channel.consumer_tags):
                self._channel.basic_cancel(consumer_tag)

    def close_channel(self) -> None:
        """Close the channel; unanswered messages go back. Called by the connection's thread."""
        channel = self._channel
        self.detach()
        if channel is not None and channel.is_open:
            channel.close()

    def detach(self) -> None:
        """Forget the channel and what was received, which comes again. Connection's thread only.

        A subscription that never attaches again keeps its message: nothing else would come.
        """
        self._channel = None
        self._unanswered.clear()
        self._retry_at = 0.0
        with self._changed:
            if not self._finished:
                self._inbox.clear()
            self._attached, self._refusal = False, ""


def _message(properties: pika.BasicProperties, body: bytes) -> Message:
    """Return a message, which may be hostile, without what a `Message` cannot hold."""
    raw: Mapping[object, object] = properties.headers or {}
    headers: dict[str, str | int] = {}
    for name, value in list(raw.items())[:MAX_HEADERS]:
        plain = _plain(value)
        if isinstance(name, str) and isinstance(plain, str | int) and header_fits(name, plain):
            headers[name] = plain
    user_id = properties.user_id if isinstance(properties.user_id, str) else None
    message_id = properties.message_id if isinstance(properties.message_id, str) else ""
    return Message(body, headers, user_id, message_id)


def _plain(value: object) -> object:
    """Undo pika's subclass of int for 64-bit integers, whose repr ends in "L"."""
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value

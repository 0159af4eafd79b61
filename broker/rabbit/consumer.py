"""Receiving from RabbitMQ: a stream of updates, or, through `broker.single_task`, one task.

Both are a `Subscription` on the consuming link. Answers go to the connection's own thread; after
a lost connection they have no effect, because the broker delivers those messages again.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from broker.dead_letter import dead_letter
from broker.protocol import Delivery, Message
from broker.rabbit.connection import RabbitConnection
from broker.rabbit.subscription import Acknowledgement, Subscription


class RabbitConsumer:
    """Implements `broker.protocol.Consumer`.

    Args:
        link: The consuming connection.
        subscription: Already or soon added to it.
        publish_dead: Publishes to the run's dead-letter queue and waits for the confirm.
        on_close: Called once it is closed.
    """

    def __init__(
        self,
        link: RabbitConnection,
        subscription: Subscription,
        publish_dead: Callable[[Message], None],
        on_close: Callable[[RabbitConsumer], None],
    ) -> None:
        self._link = link
        self._subscription = subscription
        self._publish_dead = publish_dead
        self._on_close = on_close

    def receive(self, timeout: float) -> Delivery | None:
        """See `Consumer.receive`."""
        return self._subscription.receive(timeout)

    def ack(self, delivery: Delivery) -> None:
        """See `Consumer.ack`; returns before the broker knows."""
        self._answer(delivery, "ack")

    def requeue(self, delivery: Delivery) -> None:
        """See `Consumer.requeue`."""
        self._answer(delivery, "requeue")

    def reject(self, delivery: Delivery, reason: str) -> None:
        """See `Consumer.reject`."""
        # Dead letter first: a crash in between leaves the message twice rather than nowhere.
        self._publish_dead(dead_letter(delivery, reason))
        self._answer(delivery, "ack")

    def cancel(self) -> None:
        """Receive no more; what was delivered may still be answered."""
        self._link.attempt(lambda _: self._subscription.cancel())

    def close(self) -> None:
        """See `Consumer.close`."""
        self._link.remove(self._subscription)
        self._on_close(self)

    def _answer(self, delivery: Delivery, answer: Acknowledgement) -> Future[object]:
        return self._link.attempt(lambda _: self._subscription.answer(delivery.tag, answer))

"""A consumer of RabbitMQ queues: a stream of updates, or one task for `broker.single_task`.

Both are a `Subscription` on the consuming connection. Answers go to the connection's own thread;
after a lost connection they have no effect, because the broker delivers those messages again.
"""

from __future__ import annotations

from collections.abc import Callable

from broker.dead_letter import dead_letter
from broker.protocol import Delivery, Message
from broker.rabbit.connection import RabbitConnection
from broker.rabbit.subscription import Acknowledgement, Subscription


class RabbitConsumer:
    """A stream of deliveries; implements `broker.protocol.Consumer`.

    `publish_dead` publishes to the run's dead-letter queue and waits for the confirm.
    """

    def __init__(
        self,
        connection: RabbitConnection,
        subscription: Subscription,
        publish_dead: Callable[[Message], None],
        on_close: Callable[[RabbitConsumer], None],
    ) -> None:
        self._connection = connection
        self._subscription = subscription
        self._publish_dead = publish_dead
        self._on_close = on_close

    def receive(self, timeout: float) -> Delivery | None:
        return self._subscription.receive(timeout)

    def ack(self, delivery: Delivery) -> None:
        self._answer(delivery, "ack")

    def requeue(self, delivery: Delivery) -> None:
        self._answer(delivery, "requeue")

    def reject(self, delivery: Delivery, reason: str) -> None:
        # Dead letter first: a crash in between leaves the message twice rather than nowhere.
        self._publish_dead(dead_letter(delivery, reason))
        self._answer(delivery, "ack")

    def cancel(self) -> None:
        """Stop receiving; deliveries may still be answered."""
        self._connection.call_if_connected(lambda _: self._subscription.cancel())

    def close(self) -> None:
        self._connection.remove(self._subscription)
        self._on_close(self)

    def _answer(self, delivery: Delivery, answer: Acknowledgement) -> None:
        self._connection.call_if_connected(
            lambda _: self._subscription.answer(delivery.tag, answer)
        )

"""One task, taken through a consumer of its own that ends with the answer; for every broker.

In a task's path: after a broker's `take_task`, before `worker/service.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from broker.dead_letter import dead_letter
from broker.protocol import Consumer, Delivery, Message


class SingleTask:
    """The message of one task; implements `broker.protocol.TakenTask`.

    Answering closes the consumer. RabbitMQ confirms that only after it has processed the answer:
    when `ack` returns on a live connection, the task is gone from its queue.

    Args:
        consumer: The consumer that received this message, and no other.
        publish_rejection: Publishes to the site's update queue: a site may write nowhere else.
    """

    def __init__(
        self, consumer: Consumer, delivery: Delivery, publish_rejection: Callable[[Message], None]
    ) -> None:
        self._consumer = consumer
        self._publish_rejection = publish_rejection
        self._delivery = delivery

    @property
    def message(self) -> Message:
        return self._delivery.message

    @property
    def redelivered(self) -> bool:
        return self._delivery.redelivered

    def ack(self) -> None:
        self._consumer.ack(self._delivery)
        self._consumer.close()

    def reject(self, reason: str) -> None:
        # Publish first: after a crash in between the message exists twice, and not nowhere.
        self._publish_rejection(dead_letter(self._delivery, reason))
        self._consumer.ack(self._delivery)
        self._consumer.close()

    def requeue(self) -> None:
        self._consumer.requeue(self._delivery)
        self._consumer.close()

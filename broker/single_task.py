"""One task, taken through a consumer of its own that ends with the answer; for every broker.

Between `broker` and `worker/service.py` on a task's way.
"""

from __future__ import annotations

from collections.abc import Callable

from broker.dead_letter import dead_letter
from broker.protocol import Consumer, Delivery, Message


class SingleTask:
    """Implements `broker.protocol.TakenTask`.

    Args:
        consumer: Took the message, and nothing else.
        delivery: The message.
        complain: Publishes to the site's update queue: a site may write nowhere else.

    Answering closes the consumer. RabbitMQ confirms that only after it has dealt with the answer:
    when `ack` returns on a live connection, the task is gone from its queue.
    """

    def __init__(
        self, consumer: Consumer, delivery: Delivery, complain: Callable[[Message], None]
    ) -> None:
        self._consumer = consumer
        self._complain = complain
        self._delivery = delivery

    @property
    def message(self) -> Message:
        """The task's message."""
        return self._delivery.message

    @property
    def redelivered(self) -> bool:
        """Whether it was delivered before."""
        return self._delivery.redelivered

    def ack(self) -> None:
        """See `TakenTask.ack`."""
        self._consumer.ack(self._delivery)
        self._consumer.close()

    def reject(self, reason: str) -> None:
        """See `TakenTask.reject`."""
        # Complaint first: a crash in between leaves the message twice rather than nowhere.
        self._complain(dead_letter(self._delivery, reason))
        self._consumer.ack(self._delivery)
        self._consumer.close()

    def requeue(self) -> None:
        """See `TakenTask.requeue`."""
        self._consumer.requeue(self._delivery)
        self._consumer.close()

"""The copy of a rejected message in the dead-letter queue.

The consumer that rejects a message publishes this copy and then acks the original. Reason and
sender then look alike on every broker version, unlike the broker's own dead-letter headers.
"""

from __future__ import annotations

import hashlib

from broker.protocol import MAX_HEADER_CHARS, MAX_HEADERS, Delivery, Message

DEAD_REASON = "fccl-dead-reason"
DEAD_QUEUE = "fccl-dead-queue"
DEAD_USER = "fccl-dead-user"
DEAD_SIZE = "fccl-dead-size"
DEAD_SHA256 = "fccl-dead-sha256"
MAX_DEAD_BODY = 1 << 20
"""Larger bodies (chunks of updates) are left out: a flood of them must not fill the broker."""

_OWN_HEADERS = 5


def dead_letter(delivery: Delivery, reason: str) -> Message:
    """Return the copy to publish.

    It has the original headers as far as they fit, and headers for the reason (cut to the length
    of a header), the queue, the sender, and the size and hash of the body.
    """
    original = delivery.message
    headers = {
        name: value
        for name, value in list(original.headers.items())[: MAX_HEADERS - _OWN_HEADERS]
        if not name.startswith("fccl-dead-")
    }
    headers |= {
        DEAD_REASON: reason.encode("utf-8", "replace").decode()[:MAX_HEADER_CHARS],
        DEAD_QUEUE: delivery.queue,
        DEAD_USER: original.user_id or "",
        DEAD_SIZE: len(original.body),
        DEAD_SHA256: hashlib.sha256(original.body).hexdigest(),
    }
    body = original.body if len(original.body) <= MAX_DEAD_BODY else b""
    return Message(body, headers, message_id=original.message_id)

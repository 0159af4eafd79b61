"""Alarms of RabbitMQ: low on memory or disk, it takes no more messages from any publisher.

It says so to a connection that tries to publish, and stops reading from it; consuming goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika.adapters.blocking_connection import BlockingConnection

from broker.protocol import BrokerBlocked

_MEMORY = "free memory there, or raise vm_memory_high_watermark"
_DISK = "free disk space there, or lower disk_free_limit"


def blocked_error(where: str, reason: str) -> BrokerBlocked:
    """Return the error for a broker at `where` that gave this reason, e.g. `low on memory`."""
    kinds = [kind for kind in ("memory", "disk") if kind in reason]
    remedies = {"memory": _MEMORY, "disk": _DISK}
    return BrokerBlocked(
        f"RabbitMQ at {where} refuses publishers: {' and '.join(kinds) or 'resource'} alarm",
        "; ".join(remedies[kind] for kind in kinds) or _MEMORY,
    )


def watch_alarms(
    connection: BlockingConnection,
    on_blocked: Callable[[str], None],
    on_unblocked: Callable[[], None],
) -> None:
    """Call a function as soon as the broker blocks a connection, and another when that has ended.

    pika's own callbacks of a blocking connection are not called while it publishes, which is when
    they are needed; those of the connection inside it are.
    """
    inner = connection._impl

    def blocked(_: Any, frame: Any) -> None:
        reason = frame.method.reason
        on_blocked(reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason))

    inner.add_on_connection_blocked_callback(blocked)
    inner.add_on_connection_unblocked_callback(lambda *_: on_unblocked())

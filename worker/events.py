"""Events of a worker: what it tells its log and, through its heartbeats, the coordinator's viewers.

Event texts are for people. They never contain user text.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class WorkerEventKind(StrEnum):
    """Kind of a worker's event.

    The values travel in heartbeats (`LocalEvent.kind`) and stand in JSON logs: add values, but
    change none.
    """

    BROKER = "broker"  # the connection to RabbitMQ changed
    WAITING = "waiting"  # something is missing; the worker tries again
    JOINED = "joined"  # a client of an invited site takes part
    TRAINED = "trained"
    ABANDONED = "abandoned"  # a task was not finished
    REFUSED = "refused"  # a task cannot be trained here
    ACCEPTED = "accepted"  # the coordinator accepted an update
    REJECTED = "rejected"  # the coordinator rejected an update, or a message is no task
    LEARNED = "learned"  # live input was learned
    UNLEARNED = "unlearned"  # live input was not learned, or was given up
    REBASED = "rebased"  # what a client had learned was carried over to a newer version
    SETTLED = "settled"  # live input is in an accepted update


EventCallback = Callable[[WorkerEventKind, str], None]
"""Called with the kind and the text of an event."""

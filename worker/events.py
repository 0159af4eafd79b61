"""Events of a worker, for its log and, through its heartbeats, for the coordinator's viewers.

Their texts are for people, and never contain user text.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class WorkerEventKind(StrEnum):
    """Kind of an event. The values are in heartbeats and JSON logs: add some, but change none."""

    BROKER = "broker"  # the connection to RabbitMQ changed
    WAITING = "waiting"  # something is missing; the worker tries again
    JOINED = "joined"  # a client of an invited site takes part
    TRAINED = "trained"
    EVALUATED = "evaluated"
    ABANDONED = "abandoned"  # a task was not finished
    REFUSED = "refused"  # a task cannot be trained, or a version evaluated, here
    ACCEPTED = "accepted"  # the coordinator accepted an update or the result of an evaluation
    REJECTED = "rejected"  # the coordinator rejected an update, or a message is no task
    LEARNED = "learned"  # live input was learned
    UNLEARNED = "unlearned"  # live input was not learned, or was dropped
    REBASED = "rebased"  # what a client had learned was applied to a newer version
    RESTING = "resting"  # the worker takes no tasks outside its hours, or takes them again
    DELIVERED = "delivered"  # the result of the run is on this machine
    SETTLED = "settled"  # live input is in an accepted update


GOES_ON = "the worker goes on by itself"
"""What follows the remedy of an error of the disk."""

EventCallback = Callable[[WorkerEventKind, str], None]

"""Queue depths by site, and the rates at which they change between two views."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from common.store.view import ClientRow, QueueRow

WINDOW_S = 10.0  # rates are means over about so many seconds


class QueueKind(Enum):
    """Purpose of a queue."""

    TASKS = "tasks"
    UPDATES = "updates"
    DEAD = "dead"
    OTHER = "other"


@dataclass(frozen=True)
class QueueName:
    """Purpose of a queue, and its site; the queue of dead letters belongs to no site."""

    kind: QueueKind
    site: str


@dataclass(frozen=True)
class QueueSample:
    """Counts at one moment."""

    at: float  # on the monotonic clock
    depths: Mapping[str, int]  # messages by queue
    issued: Mapping[str, int]  # tasks since the run began, by site
    applied: Mapping[str, int]  # updates since the run began, by site


@dataclass(frozen=True)
class SiteDepths:
    """The two queues of a site, and its rates per second; None where nothing is known (yet)."""

    site: str
    tasks: QueueRow | None
    updates: QueueRow | None
    tasks_growth: float | None  # messages; negative when the queue shrinks
    updates_growth: float | None
    issued: float | None
    applied: float | None


def parse_queue_name(queue: str) -> QueueName:
    """Split `fccl.RUN.tasks.SITE`, `fccl.RUN.updates.SITE` or `fccl.RUN.dead` into its parts.

    `broker.protocol.Topology` makes these names.
    """
    match queue.split("."):
        case ["fccl", _, "tasks", site]:
            return QueueName(QueueKind.TASKS, site)
        case ["fccl", _, "updates", site]:
            return QueueName(QueueKind.UPDATES, site)
        case ["fccl", _, "dead"]:
            return QueueName(QueueKind.DEAD, "")
    return QueueName(QueueKind.OTHER, queue)


def take_sample(at: float, queues: Iterable[QueueRow], clients: Iterable[ClientRow]) -> QueueSample:
    issued: Counter[str] = Counter()
    applied: Counter[str] = Counter()
    for client in clients:
        issued[client.site] += client.issued
        applied[client.site] += client.participation
    return QueueSample(at, {row.queue: row.messages for row in queues}, issued, applied)


def add_sample(
    samples: Sequence[QueueSample], new: QueueSample, window_s: float = WINDOW_S
) -> tuple[QueueSample, ...]:
    """Return the samples of the last seconds with a new one; one older than the window stays.

    A sample that is no newer than the last one adds nothing.
    """
    if samples and new.at <= samples[-1].at:
        return tuple(samples)
    kept = [*samples, new]
    while len(kept) > 2 and new.at - kept[1].at >= window_s:
        kept.pop(0)
    return tuple(kept)


def queues_by_site(queues: Iterable[QueueRow], samples: Sequence[QueueSample]) -> list[SiteDepths]:
    """Return the queues and rates of each site, sorted by name."""
    tasks: dict[str, QueueRow] = {}
    updates: dict[str, QueueRow] = {}
    for row in queues:
        name = parse_queue_name(row.queue)
        if name.kind is QueueKind.TASKS:
            tasks[name.site] = row
        elif name.kind is QueueKind.UPDATES:
            updates[name.site] = row
    sites = sorted(tasks.keys() | updates.keys())
    return [_site_queues(site, tasks.get(site), updates.get(site), samples) for site in sites]


def dead_letter_queue(queues: Iterable[QueueRow]) -> QueueRow | None:
    dead = QueueKind.DEAD
    return next((row for row in queues if parse_queue_name(row.queue).kind is dead), None)


def queue_growth(samples: Sequence[QueueSample], queue: str) -> float | None:
    """Return the growth of a queue in messages per second; None while unknown."""
    return _rate(samples, lambda sample: sample.depths.get(queue))


def _site_queues(
    site: str, tasks: QueueRow | None, updates: QueueRow | None, samples: Sequence[QueueSample]
) -> SiteDepths:
    return SiteDepths(
        site=site,
        tasks=tasks,
        updates=updates,
        tasks_growth=queue_growth(samples, tasks.queue) if tasks else None,
        updates_growth=queue_growth(samples, updates.queue) if updates else None,
        issued=_rate(samples, lambda sample: sample.issued.get(site)),
        applied=_rate(samples, lambda sample: sample.applied.get(site)),
    )


def _rate(
    samples: Sequence[QueueSample], count: Callable[[QueueSample], int | None]
) -> float | None:
    """Return the change per second of a count, over the samples that have it."""
    known = [(sample.at, value) for sample in samples if (value := count(sample)) is not None]
    if len(known) < 2:
        return None
    (start, first), (end, last) = known[0], known[-1]
    return (last - first) / (end - start)

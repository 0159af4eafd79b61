"""What the panes show beyond the view itself: rates, ages of updates, weights over time. Pure.

Every function takes records and returns values; `tui/panes/` puts them on the screen.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from common.protocol.feed import Event
from common.protocol.versions import VersionSummary
from common.store.view import ClientRow, QueueRow

QueueKind = Literal["tasks", "updates", "dead", "other"]

LEVELS = ("info", "warning", "error")
WINDOW_S = 10.0  # rates are taken over about so many seconds


# weights


def weights(versions: Iterable[VersionSummary]) -> dict[str, dict[int, float]]:
    """Summed weight by client and version: one client's updates in a buffer share its weight."""
    table: dict[str, dict[int, float]] = {}
    for summary in versions:
        for update in summary.updates:
            row = table.setdefault(update.client_id, {})
            row[summary.version] = row.get(summary.version, 0.0) + update.weight
    return table


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """A key that sorts `client_10` after `client_9`."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return tuple(
        (int(part), "") if part.isascii() and part.isdigit() else (-1, part) for part in parts
    )


def digit(weight: float | None, largest: float) -> str:
    """A weight as one character: 0 to 9, where 9 is the largest; blank for no update."""
    if weight is None:
        return " "
    return str(round(9 * weight / largest)) if largest > 0 else "0"


def histogram(versions: Iterable[VersionSummary]) -> dict[int, int]:
    """Updates by staleness, from 0 to the largest, gaps filled."""
    counts = Counter(update.staleness for each in versions for update in each.updates)
    return {age: counts[age] for age in range(max(counts, default=-1) + 1)}


def bins(counts: Mapping[int, int], most: int) -> list[tuple[str, int]]:
    """A histogram in at most so many labelled bins; the last one takes the rest.

    Args:
        counts: By value, from 0 without a gap.
        most: Bins, at least 1.
    """
    rows = [(str(value), counts[value]) for value in sorted(counts)]
    if len(rows) <= most:
        return rows
    rest = sum(count for _, count in rows[most - 1 :])
    return [*rows[: most - 1], (f"{most - 1}+", rest)]


def bar(value: float, largest: float, width: int) -> str:
    """A bar of blocks; something that is not nothing has at least one."""
    if value <= 0 or largest <= 0:
        return ""
    return "█" * max(1, min(width, round(width * value / largest)))


# events


def passing(events: Iterable[Event], level: str, text: str) -> list[Event]:
    """Events of a level or worse whose kind, text or refs hold some text, case aside."""
    allowed, wanted = LEVELS[LEVELS.index(level) :], text.casefold()
    return [e for e in events if e.level in allowed and wanted in _searched(e)]


def rejections(events: Iterable[Event]) -> list[Event]:
    """Updates that were not applied, newest first, as far as the feed goes back."""
    return [event for event in events if event.kind == "rejected"][::-1]


def reason(event: Event) -> str:
    """Why an update was rejected: the event's text without the client, which stands beside it."""
    return event.text.partition(" rejected: ")[2] or event.text


def target(event: Event) -> tuple[Literal["client", "version"], str] | None:
    """The client or version that an event is about, the client first."""
    if "client" in event.refs:
        return "client", str(event.refs["client"])
    if "version" in event.refs:
        return "version", str(event.refs["version"])
    return None


def _searched(event: Event) -> str:
    refs = " ".join(str(value) for value in event.refs.values())
    return f"{event.kind} {event.text} {refs}".casefold()


# queues


@dataclass(frozen=True)
class QueueName:
    """What a queue is for, and whose it is; no site for the dead letters."""

    kind: QueueKind
    site: str


@dataclass(frozen=True)
class QueueSample:
    """What is counted at one moment, on the monotonic clock.

    Attributes:
        at: The moment.
        depths: Messages by queue.
        issued: Tasks ever issued, by site.
        applied: Updates ever applied, by site.
    """

    at: float
    depths: Mapping[str, int]
    issued: Mapping[str, int]
    applied: Mapping[str, int]


def place(queue: str) -> QueueName:
    """The parts of a queue's name, `fccl.RUN.tasks.SITE`, `….updates.SITE` or `….dead`."""
    parts = queue.split(".")
    if len(parts) == 4 and parts[0] == "fccl" and parts[2] in ("tasks", "updates"):
        return QueueName("tasks" if parts[2] == "tasks" else "updates", parts[3])
    if len(parts) == 3 and parts[0] == "fccl" and parts[2] == "dead":
        return QueueName("dead", "")
    return QueueName("other", queue)


def sample(at: float, queues: Iterable[QueueRow], clients: Iterable[ClientRow]) -> QueueSample:
    """What is counted now."""
    issued: Counter[str] = Counter()
    applied: Counter[str] = Counter()
    for client in clients:
        issued[client.site] += client.issued
        applied[client.site] += client.participation
    return QueueSample(at, {row.queue: row.messages for row in queues}, issued, applied)


def remember(
    samples: Sequence[QueueSample], new: QueueSample, window_s: float = WINDOW_S
) -> tuple[QueueSample, ...]:
    """The samples of the last seconds, with a new one; at least one older than the window stays.

    A look that is no newer than the last one adds nothing.
    """
    if samples and new.at <= samples[-1].at:
        return tuple(samples)
    kept = [*samples, new]
    while len(kept) > 2 and new.at - kept[1].at >= window_s:
        kept.pop(0)
    return tuple(kept)


def rate(
    samples: Sequence[QueueSample], counted: Callable[[QueueSample], int | None]
) -> float | None:
    """By how much a count changes per second over the samples that have it; None while unknown."""
    known = [(each.at, value) for each in samples if (value := counted(each)) is not None]
    if len(known) < 2:
        return None
    (began, first), (ended, last) = known[0], known[-1]
    return (last - first) / (ended - began)


@dataclass(frozen=True)
class SiteQueues:
    """One site's two queues. What the coordinator has not shown (yet) is None.

    Attributes:
        site: Its name.
        tasks: Waiting tasks, and workers that take them.
        updates: Waiting updates, and coordinators that take them.
        tasks_growth: Tasks per second by which the queue grows or, negative, shrinks.
        updates_growth: Likewise.
        issued: Tasks per second.
        applied: Updates per second.
    """

    site: str
    tasks: QueueRow | None
    updates: QueueRow | None
    tasks_growth: float | None
    updates_growth: float | None
    issued: float | None
    applied: float | None


def sites(queues: Iterable[QueueRow], samples: Sequence[QueueSample]) -> list[SiteQueues]:
    """The queues by site, in the order of their names."""
    found: dict[str, dict[QueueKind, QueueRow]] = {}
    for row in queues:
        where = place(row.queue)
        if where.kind in ("tasks", "updates"):
            found.setdefault(where.site, {})[where.kind] = row
    return [_site(name, found[name], samples) for name in sorted(found)]


def dead(queues: Iterable[QueueRow]) -> QueueRow | None:
    """The queue of dead letters."""
    return next((row for row in queues if place(row.queue).kind == "dead"), None)


def growth(samples: Sequence[QueueSample], queue: str) -> float | None:
    """Messages per second by which a queue grows or, negative, shrinks; None while unknown."""
    return rate(samples, lambda each: each.depths.get(queue))


def _site(
    name: str, rows: Mapping[QueueKind, QueueRow], samples: Sequence[QueueSample]
) -> SiteQueues:
    tasks, updates = rows.get("tasks"), rows.get("updates")
    return SiteQueues(
        site=name,
        tasks=tasks,
        updates=updates,
        tasks_growth=growth(samples, tasks.queue) if tasks else None,
        updates_growth=growth(samples, updates.queue) if updates else None,
        issued=rate(samples, lambda each: each.issued.get(name)),
        applied=rate(samples, lambda each: each.applied.get(name)),
    )


def size(nbytes: int) -> str:
    """Bytes for people, in powers of 1024."""
    value, units = float(nbytes), ("B", "KiB", "MiB", "GiB")
    for unit in units[:-1]:
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {units[-1]}"

"""Figures derived from a view: pace, time left, bytes, weights and training times.

Times are the coordinator's (`at` of versions, `updated_at`), because the clocks of two machines
may differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from common.protocol.heartbeat import Heartbeat
from common.protocol.versions import UpdateSummary, VersionSummary
from common.store.view import ClientRow, RunInfo

RECENT = 10  # versions over which rates and trends are computed

AppliedUpdate = tuple[int, UpdateSummary]
"""A version and an update that went into it."""


@dataclass(frozen=True)
class Pace:
    """Speed of a run over its last versions, per minute."""

    updates: float
    versions: float


def measure_pace(versions: Sequence[VersionSummary], now: float) -> Pace | None:
    """Return the pace, which falls while nothing is committed; None before two commits.

    Version 0 does not count: the time after it may have gone into making a base model or waiting
    for workers. `now` is on the coordinator's clock.
    """
    window = [version for version in versions[-RECENT - 1 :] if version.version > 0]
    if len(window) < 2:
        return None
    elapsed = max(now, window[-1].at) - window[0].at
    if elapsed <= 0:
        return None
    updates = sum(len(version.updates) for version in window[1:])
    return Pace(60 * updates / elapsed, 60 * (len(window) - 1) / elapsed)


def estimate_seconds_left(version: int, total: int, pace: Pace | None) -> float | None:
    """Return the seconds until the last version at this pace; None while unknown."""
    if pace is None or pace.versions <= 0:
        return None
    return 60 * max(0, total - version) / pace.versions


@dataclass(frozen=True)
class PhaseProgress:
    """Progress of the current phase, in versions."""

    done: int
    total: int

    @property
    def share(self) -> float:
        return min(1.0, self.done / self.total) if self.total else 1.0


def phase_progress(info: RunInfo) -> PhaseProgress | None:
    """Return the progress of the current phase; None if the coordinator names no phase ends."""
    if info.phase >= len(info.phase_ends):
        return None
    begin = info.phase_ends[info.phase - 1] if info.phase else 0
    return PhaseProgress(max(0, info.version - begin), max(0, info.phase_ends[info.phase] - begin))


def phase_starts(versions: Sequence[VersionSummary]) -> tuple[tuple[int, int], ...]:
    """Return (version, phase) for the first version of each phase after the first."""
    return tuple(
        (b.version, b.phase) for a, b in pairwise(versions) if b.phase != a.phase and a.version > 0
    )


def total_tokens_per_s(workers: Sequence[Heartbeat]) -> float:
    """Return the tokens per second of the workers that train now.

    A waiting worker repeats its last figure, which must not count.
    """
    return sum(worker.tokens_per_s for worker in workers if worker.state == "training")


def count_states(workers: Sequence[Heartbeat]) -> Mapping[str, int]:
    return Counter(worker.state for worker in workers)


def uploaded_bytes(versions: Sequence[VersionSummary]) -> int:
    """Return the bytes of all applied updates."""
    return sum(update.nbytes for version in versions for update in version.updates)


def downloaded_bytes(versions: Sequence[VersionSummary]) -> int:
    """Return the bytes of the adapters that the applied updates started from.

    Each is counted once per update; a worker that caches an adapter fetches less.
    """
    sizes = {version.version: version.nbytes for version in versions}
    return sum(sizes.get(u.base_version, 0) for version in versions for u in version.updates)


def updates_by_client(
    versions: Sequence[VersionSummary],
) -> Mapping[str, Sequence[AppliedUpdate]]:
    """Return each client's applied updates, oldest first."""
    return _group(versions, lambda update: update.client_id)


def sites_by_client(clients: Sequence[ClientRow]) -> Mapping[str, str]:
    return {row.client_id: row.site for row in clients}


def updates_by_worker(
    versions: Sequence[VersionSummary], sites: Mapping[str, str]
) -> Mapping[str, Sequence[AppliedUpdate]]:
    """Return each worker's applied updates, oldest first, by `site/worker`.

    An update does not name its site, and workers of two sites may have the same name; the client
    tells them apart, because its rows are at one site only (`sites`: site by client).
    """
    return _group(versions, lambda u: f"{sites.get(u.client_id, '')}/{u.worker_id}")


def _group(
    versions: Sequence[VersionSummary], key: Callable[[UpdateSummary], str]
) -> Mapping[str, Sequence[AppliedUpdate]]:
    groups: dict[str, list[AppliedUpdate]] = {}
    for version in versions:
        for update in version.updates:
            groups.setdefault(key(update), []).append((version.version, update))
    return groups


def recent_weights(
    applied: Sequence[AppliedUpdate], newest: int, count: int = RECENT
) -> tuple[float | None, ...]:
    """Return a client's weight in each of the last versions; None where it had no update."""
    if not applied or applied[-1][0] <= newest - count:
        return (None,) * min(count, newest)
    weights: dict[int, float] = {}
    for version, update in applied[-4 * count :]:  # a version may hold a client more than once
        weights[version] = weights.get(version, 0.0) + update.weight
    return tuple(weights.get(version) for version in range(max(1, newest - count + 1), newest + 1))


def slowest_clients(
    clients: Mapping[str, Sequence[AppliedUpdate]], count: int = 3
) -> Sequence[tuple[str, float]]:
    """Return at most `count` clients with the longest training: median seconds per update.

    `clients` is the result of `updates_by_client`.
    """
    times = {
        client: median(update.stats.train_seconds for _, update in applied[-RECENT:])
        for client, applied in clients.items()
    }
    return sorted(times.items(), key=lambda entry: (-entry[1], entry[0]))[:count]


def median_seconds(versions: Sequence[VersionSummary]) -> float | None:
    """Return the median training time of the updates in the last versions."""
    times = [u.stats.train_seconds for version in versions[-RECENT:] for u in version.updates]
    return median(times) if times else None

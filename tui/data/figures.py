"""What the panes derive from a view: rates, what is left, who is slow. Pure.

Time is the coordinator's (`at` of versions, `updated_at`): clocks of two machines may differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from common.protocol.heartbeat import Heartbeat
from common.protocol.versions import UpdateSummary, VersionSummary
from common.store.view import ClientRow, FederationView, RunInfo
from tui.formatting import plural

RECENT = 10  # versions that a rate, or a trend, is taken over

AppliedUpdate = tuple[int, UpdateSummary]
"""An update, and the version that it went into."""


@dataclass(frozen=True)
class Pace:
    """How fast the run goes, over the last versions up to now.

    Attributes:
        updates: Applied per minute.
        versions: Committed per minute.
    """

    updates: float
    versions: float


def pace(versions: Sequence[VersionSummary], now: float) -> Pace | None:
    """The pace; falls while nothing is committed. None until two versions are committed.

    Version 0 is not: from there on a model was made, or workers were waited for.

    Args:
        versions: By number.
        now: On the coordinator's clock.
    """
    window = [version for version in versions[-RECENT - 1 :] if version.version > 0]
    if len(window) < 2:
        return None
    elapsed = max(now, window[-1].at) - window[0].at
    if elapsed <= 0:
        return None
    updates = sum(len(version.updates) for version in window[1:])
    return Pace(60 * updates / elapsed, 60 * (len(window) - 1) / elapsed)


def seconds_left(version: int, total: int, speed: Pace | None) -> float | None:
    """Until the last version, should the pace stay as it is."""
    if speed is None or speed.versions <= 0:
        return None
    return 60 * max(0, total - version) / speed.versions


@dataclass(frozen=True)
class PhaseProgress:
    """How far the current phase is, in versions."""

    done: int
    total: int

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        return min(1.0, self.done / self.total) if self.total else 1.0


def phase_progress(info: RunInfo) -> PhaseProgress | None:
    """How far the current phase is; None where the coordinator does not say how long it is."""
    if info.phase >= len(info.phase_ends):
        return None
    begin = info.phase_ends[info.phase - 1] if info.phase else 0
    return PhaseProgress(max(0, info.version - begin), max(0, info.phase_ends[info.phase] - begin))


def tokens_per_s(workers: Sequence[Heartbeat]) -> float:
    """Of all that train now: a worker that waits repeats its last figure."""
    return sum(worker.tokens_per_s for worker in workers if worker.state == "training")


def bytes_up(versions: Sequence[VersionSummary]) -> int:
    """Of the updates that were applied."""
    return sum(update.nbytes for version in versions for update in version.updates)


def bytes_down(versions: Sequence[VersionSummary]) -> int:
    """Of the adapters that those updates began from, each fetched once per update."""
    sizes = {version.version: version.nbytes for version in versions}
    return sum(sizes.get(u.base_version, 0) for version in versions for u in version.updates)


def by_client(versions: Sequence[VersionSummary]) -> Mapping[str, Sequence[AppliedUpdate]]:
    """Every client's applied updates, oldest first."""
    return _grouped(versions, lambda update: update.client_id)


def sites(clients: Sequence[ClientRow]) -> Mapping[str, str]:
    """The site of each client."""
    return {row.client_id: row.site for row in clients}


def by_worker(
    versions: Sequence[VersionSummary], sites: Mapping[str, str]
) -> Mapping[str, Sequence[AppliedUpdate]]:
    """Every worker's applied updates, oldest first.

    Args:
        versions: By number.
        sites: By client. Two sites may have a worker of the same name, and an update does not say
            which of them it is from; but a client's rows are at one site only.

    Returns:
        By site and worker, as in `site/worker`.
    """
    return _grouped(versions, lambda u: f"{sites.get(u.client_id, '')}/{u.worker_id}")


def _grouped(
    versions: Sequence[VersionSummary], name: Callable[[UpdateSummary], str]
) -> Mapping[str, Sequence[AppliedUpdate]]:
    found: dict[str, list[AppliedUpdate]] = {}
    for version in versions:
        for update in version.updates:
            found.setdefault(name(update), []).append((version.version, update))
    return found


def weights(
    done: Sequence[AppliedUpdate], newest: int, count: int = RECENT
) -> tuple[float | None, ...]:
    """FCCL weight in each of the last versions; None where the client was not in it."""
    if not done or done[-1][0] <= newest - count:
        return (None,) * min(count, newest)
    found: dict[int, float] = {}
    for version, update in done[-4 * count :]:  # a client may be in a version more than once
        found[version] = found.get(version, 0.0) + update.weight
    return tuple(found.get(version) for version in range(max(1, newest - count + 1), newest + 1))


def slowest(
    clients: Mapping[str, Sequence[AppliedUpdate]], count: int = 3
) -> Sequence[tuple[str, float]]:
    """Clients with the longest training, as the median of their last updates, in seconds.

    Args:
        clients: As `by_client` has them.
        count: At most so many.
    """
    times = {
        client: median(update.stats.train_seconds for _, update in done[-RECENT:])
        for client, done in clients.items()
    }
    return sorted(times.items(), key=lambda entry: (-entry[1], entry[0]))[:count]


def usual_seconds(versions: Sequence[VersionSummary]) -> float | None:
    """The median training time of the updates in the last versions."""
    times = [u.stats.train_seconds for version in versions[-RECENT:] for u in version.updates]
    return median(times) if times else None


def states(workers: Sequence[Heartbeat]) -> Mapping[str, int]:
    """How many workers are in each state."""
    return Counter(worker.state for worker in workers)


def boundaries(versions: Sequence[VersionSummary]) -> tuple[tuple[int, int], ...]:
    """(version, phase) of the first version that each later phase made."""
    return tuple(
        (b.version, b.phase) for a, b in pairwise(versions) if b.phase != a.phase and a.version > 0
    )


@dataclass(frozen=True)
class HealthCheck:
    """To one of the three questions that a glance asks: good, or not, and why."""

    good: bool | None
    text: str


def healthy(view: FederationView) -> HealthCheck:
    """Whether the run goes on as it should."""
    info, at_work = view.info, len(view.workers)
    if info.status not in ("running", "finished"):
        stuck = info.status in ("failed", "waiting")
        said = info.detail.startswith(info.status)  # "waiting for workers: …"
        text = info.detail if said else f"{info.status}: {info.detail}"
        return HealthCheck(False if stuck else None, text)
    if info.status == "finished":
        return HealthCheck(True, "the run is over")
    if not at_work:
        return HealthCheck(False, "no live workers")
    out = sum(client.quarantined for client in view.clients)
    if out:
        return HealthCheck(None, f"{out} of {len(view.clients)} clients quarantined")
    return HealthCheck(True, f"{plural(at_work, 'live worker')}, {info.detail}")


def learning(versions: Sequence[VersionSummary]) -> HealthCheck:
    """Whether the loss on the clients' holdouts falls: the last versions of this phase, in halves.

    The measure is the loss before each client trained: that of the shared model.
    """
    phase = versions[-1].phase if versions else 0
    seen = [v for v in versions if v.phase == phase and v.holdout_before is not None]
    losses = [v.holdout_before for v in seen[-2 * RECENT :] if v.holdout_before is not None]
    if len(losses) < 4:
        return HealthCheck(None, "too early to tell")
    half = len(losses) // 2
    before, after = median(losses[:half]), median(losses[half:])
    text = f"holdout {before:.3f} → {after:.3f}, last {len(losses)} versions"
    if after < before:
        return HealthCheck(True, text)
    return HealthCheck(False, f"{text}: not falling")


def slow(versions: Sequence[VersionSummary], worst: Sequence[tuple[str, float]]) -> HealthCheck:
    """Whether somebody takes far longer than is usual.

    Args:
        versions: By number.
        worst: As `slowest` has them.
    """
    usual = usual_seconds(versions)
    if usual is None or not worst:
        return HealthCheck(None, "no update yet")
    client, seconds = worst[0]
    text = f"{client} {seconds:.1f} s per update, usual {usual:.1f} s"
    return HealthCheck(seconds <= 3 * usual, text)

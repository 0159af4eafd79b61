"""Cached updates of a run: what `aggregation.cache_updates` needs of the updates applied earlier.

The files are kept updates (`coordinator/storage/kept_updates.py`): with `run.keep_updates` all are
there anyway, and without it those that are still in the cache. `coordinator/storage/step_writer.py`
asks what a commit adds, and which files have become superfluous.
"""

from __future__ import annotations

from functools import partial

from coordinator.aggregation.coefficients import server_rate
from coordinator.aggregation.update_cache import UpdateCache, cached_coefficients
from coordinator.core.events import CommitVersion
from coordinator.core.state import BufferedUpdate, Plan
from coordinator.storage.commit import CachedDelta
from coordinator.storage.journal import Journal
from coordinator.storage.kept_updates import KeptUpdates


class CachedUpdates:
    """Cache of one run; without `aggregation.cache_updates` it stays empty."""

    def __init__(self, plan: Plan, kept: KeptUpdates) -> None:
        self._plan, self._kept = plan, kept
        self._cache = UpdateCache[BufferedUpdate](plan.schedule.max_staleness)

    @property
    def enabled(self) -> bool:
        return self._plan.aggregation.cache_updates

    def load(self, journal: Journal) -> None:
        """Read what earlier starts have applied and kept."""
        if self.enabled:
            for version, phase, update in journal.applied_updates():
                self._cache.apply(version, phase, [update])

    def deltas(self, commit: CommitVersion) -> list[CachedDelta]:
        """Return the cached updates that count in a commit."""
        if not self.enabled:
            return []
        cached = self._cache.before(commit.version, commit.phase)
        weights = [(part.update.client_id, part.weight) for part in commit.parts]
        rate = server_rate(self._plan.aggregation)
        return [
            CachedDelta(update, coefficient, partial(self._kept.each_tensor, update))
            for update, coefficient in zip(
                cached, cached_coefficients(weights, cached, rate), strict=True
            )
        ]

    def apply(self, commit: CommitVersion) -> tuple[BufferedUpdate, ...]:
        """Remember the updates of a commit; return those whose files are superfluous from now on.

        They are of this commit, or were in the cache before it.
        """
        if not self.enabled:
            return ()
        updates = [part.update for part in commit.parts]
        candidates = [*self._cache.before(commit.version, commit.phase), *updates]
        self._cache.apply(commit.version, commit.phase, updates)
        after = commit.version + 1
        counting = self._cache.before(after, self._plan.current_phase(commit.version))
        still = {update.task_id for update in counting}
        return tuple(update for update in candidates if update.task_id not in still)

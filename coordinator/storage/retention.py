"""Which versions stay on the disk. Pure; `coordinator/service.py` removes the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from common.protocol.versions import VersionSummary
from coordinator.core.state import Plan


def federated_losses(summaries: Sequence[VersionSummary]) -> dict[int, float]:
    """Holdout loss of a version, nats per response token, by version.

    Clients measure it on their own holdout before they train from the version; the mean is weighted
    by sample count. Versions that nobody has trained from are missing.
    """
    total: dict[int, float] = defaultdict(float)
    count: dict[int, int] = defaultdict(int)
    for summary in summaries:
        for update in summary.updates:
            total[update.base_version] += update.stats.num_samples * update.stats.loss_before
            count[update.base_version] += update.stats.num_samples
    return {version: total[version] / count[version] for version in total}


def best_version(plan: Plan, summaries: Sequence[VersionSummary]) -> int | None:
    """The version of the newest phase with the lowest federated loss."""
    phase = plan.phase_of(max(0, summaries[-1].version - 1))
    losses = {
        version: loss
        for version, loss in federated_losses(summaries).items()
        if plan.phase_of(version) == phase
    }
    return min(losses, key=lambda version: (losses[version], version), default=None)


def versions_to_keep(
    plan: Plan, summaries: Sequence[VersionSummary], newest: int, in_use: Iterable[int]
) -> set[int]:
    """The `newest` newest versions, the first, phase ends, the best one and those in use."""
    current = summaries[-1].version
    ends = {plan.phase_end(phase) for phase in range(len(plan.phases))}
    chosen = {0, *range(max(0, current - newest + 1), current + 1), *ends, *in_use}
    found = best_version(plan, summaries)
    return chosen if found is None else chosen | {found}

"""Retention: the choice of the versions that stay on the disk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from common.protocol.versions import VersionSummary
from coordinator.core.state import Plan


def federated_losses(summaries: Sequence[VersionSummary]) -> dict[int, float]:
    """Return the loss of each version on the clients' own holdouts, nats per response token.

    Clients can measure it before they train from the version; the mean is weighted by sample count.
    Versions on which no client has measured it are missing.
    """
    total: dict[int, float] = defaultdict(float)
    count: dict[int, int] = defaultdict(int)
    for summary in summaries:
        for update in summary.updates:
            samples, loss = update.stats.num_samples, update.stats.loss_before
            if loss is not None:
                total[update.base_version] += samples * loss
                count[update.base_version] += samples
    return {version: total[version] / count[version] for version in total}


def best_version(plan: Plan, summaries: Sequence[VersionSummary]) -> int | None:
    """Return the version with the lowest federated loss in the newest phase, if any is known."""
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
    """Return the `newest` newest versions, version 0, phase ends, the best one and those in use."""
    current = summaries[-1].version
    ends = {plan.phase_end(phase) for phase in range(len(plan.phases))}
    kept = {0, *range(max(0, current - newest + 1), current + 1), *ends, *in_use}
    best = best_version(plan, summaries)
    return kept if best is None else kept | {best}

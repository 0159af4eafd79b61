"""Retention: the choice of the versions that stay on the disk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from common.evaluation import federated
from common.evaluation.federated import FederatedEvaluation
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


def best_version(
    plan: Plan,
    summaries: Sequence[VersionSummary],
    evaluations: Sequence[FederatedEvaluation] = (),
) -> int | None:
    """Return the best known version of the newest phase, if any is known.

    Evaluations by the clients decide. Without any of this phase it is the lowest federated loss,
    which clients claim when they train.
    """
    phase = plan.phase_before(summaries[-1].version)
    best = federated.best_version(evaluations, phase)
    if best is not None:
        return best
    losses = {
        version: loss
        for version, loss in federated_losses(summaries).items()
        if plan.phase_of(version) == phase
    }
    return min(losses, key=lambda version: (losses[version], version), default=None)


def versions_to_keep(
    plan: Plan,
    summaries: Sequence[VersionSummary],
    newest: int,
    in_use: Iterable[int],
    evaluations: Sequence[FederatedEvaluation] = (),
) -> set[int]:
    """Return the `newest` newest versions, version 0, phase ends, the best one and those in use.

    All evaluated versions of the newest phase stay, too: which one is best may change with the
    clients that answer for the next one.
    """
    current = summaries[-1].version
    ends = {plan.phase_end(phase) for phase in range(len(plan.phases))}
    kept = {0, *range(max(0, current - newest + 1), current + 1), *ends, *in_use}
    phase = plan.phase_before(current)
    kept |= {each.version for each in evaluations if each.phase == phase}
    best = best_version(plan, summaries, evaluations)
    return kept if best is None else kept | {best}

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


class RunningLosses:
    """Federated losses, added up version by version; memory holds those that may still change.

    Those of a version change until it is too old for an update to be accepted.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._total: dict[int, float] = defaultdict(float)
        self._count: dict[int, int] = defaultdict(int)
        self._best: dict[int, tuple[float, int]] = {}  # of the others, by phase: loss, version

    def add(self, summary: VersionSummary) -> None:
        """Add what the updates of a new version measured before they trained."""
        for update in summary.updates:
            samples, loss = update.stats.num_samples, update.stats.loss_before
            if loss is not None:
                self._total[update.base_version] += samples * loss
                self._count[update.base_version] += samples
        final = summary.version - 1 - self._plan.schedule.max_staleness
        for version in [each for each in self._total if each < final]:
            self._note(self._best, version)
            del self._total[version], self._count[version]

    def best_version(self, phase: int) -> int | None:
        """Return the version of a phase with the lowest loss, the earlier one of equal ones."""
        best = dict(self._best)
        for version in self._total:
            self._note(best, version)
        return best[phase][1] if phase in best else None

    def _note(self, best: dict[int, tuple[float, int]], version: int) -> None:
        found = (self._total[version] / self._count[version], version)
        phase = self._plan.phase_of(version)
        best[phase] = min(found, best.get(phase, found))


def versions_to_keep(
    plan: Plan,
    current: int,
    newest: int,
    in_use: Iterable[int],
    losses: RunningLosses,
    evaluations: Sequence[FederatedEvaluation] = (),
) -> set[int]:
    """Return the `newest` newest versions, version 0, phase ends, the best one and those in use.

    The best one of the newest phase is known from evaluations by the clients. Without any it is the
    one with the lowest federated loss, which clients claim when they train. All evaluated versions
    of that phase stay, too: which one is best may change with the clients that answer for the next.

    Args:
        plan: Plan of the run.
        current: Newest version.
        newest: Number of the newest versions to keep.
        in_use: Versions that workers may still fetch.
        losses: Federated losses of all versions.
        evaluations: Evaluations of versions by the clients.
    """
    ends = {plan.phase_end(phase) for phase in range(len(plan.phases))}
    kept = {0, *range(max(0, current - newest + 1), current + 1), *ends, *in_use}
    phase = plan.phase_before(current)
    kept |= {each.version for each in evaluations if each.phase == phase}
    best = federated.best_version(evaluations, phase)
    if best is None:
        best = losses.best_version(phase)
    return kept if best is None else kept | {best}

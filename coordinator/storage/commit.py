"""Carries a `CommitVersion` out: the buffer's updates from the spool become a version.

Reads, computes, writes files; `coordinator/service.py` journals the row, and then gives the files
their number. After `contribution` and `staleness` on an update's way, before `journal`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common.protocol.tensors import Tensors
from common.protocol.versions import UpdateSummary, VersionSummary
from coordinator.aggregation.factor import aggregate_factors
from coordinator.core.events import CommitPart, CommitVersion
from coordinator.storage.spool import Spool
from coordinator.storage.versions import Versions


def write_version(
    action: CommitVersion, versions: Versions, spool: Spool, now: float
) -> VersionSummary:
    """Make the version durable; returns the summary that the journal is to record.

    Raises:
        RunError: An update cannot be read, the result is not finite, or the disk refused.
    """
    current = versions.read(action.version - 1)
    ref = versions.stage(action.version, aggregate_factors(current, _deltas(action.parts, spool)))
    return VersionSummary(
        version=action.version,
        phase=action.phase,
        at=now,
        sha256=ref.sha256,
        nbytes=ref.nbytes,
        train_loss=_mean(action.parts, "avg_loss"),
        holdout_before=_mean(action.parts, "loss_before"),
        holdout_after=_mean(action.parts, "loss_after"),
        accuracy_before=_mean(action.parts, "accuracy_before"),
        accuracy_after=_mean(action.parts, "accuracy_after"),
        updates=tuple(_summary(part) for part in action.parts),
    )


def _deltas(parts: Sequence[CommitPart], spool: Spool) -> Iterator[tuple[float, Tensors]]:
    for part in parts:
        yield part.coefficient, spool.delta(part.update.upload)


def _mean(parts: Sequence[CommitPart], name: str) -> float | None:
    """Sample-weighted mean of one statistic over the buffer; None if no update has it."""
    stats = [part.update.stats for part in parts]
    known = [(s.num_samples, getattr(s, name)) for s in stats if getattr(s, name) is not None]
    if not known:
        return None
    return float(sum(n * value for n, value in known) / sum(n for n, _ in known))


def _summary(part: CommitPart) -> UpdateSummary:
    return UpdateSummary(
        task_id=part.update.task_id,
        client_id=part.update.client_id,
        worker_id=part.update.worker_id,
        base_version=part.update.base_version,
        staleness=part.staleness,
        score=part.score,
        weight=part.weight,
        staleness_factor=part.staleness_factor,
        participation_factor=part.participation_factor,
        clip=part.update.clip,
        coefficient=part.coefficient,
        stats=part.update.stats,
        nbytes=part.update.nbytes,
    )

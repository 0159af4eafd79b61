"""Commit of a version: the adapter of the next version from the buffered updates in the spool.

On an update's path this comes after `coordinator/aggregation/coefficients.py`. It writes the files
with `coordinator/storage/versions.py`; they get the version's number only once
`coordinator/storage/journal.py`, the next file, has recorded it.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.protocol.layout import TensorLayout
from common.protocol.tensors import Tensors
from common.protocol.versions import UpdateSummary, VersionSummary
from coordinator.aggregation.factor import add_delta
from coordinator.core.events import CommitPart, CommitVersion
from coordinator.storage.spool import Spool
from coordinator.storage.versions import Versions


def write_version(
    commit: CommitVersion, versions: Versions, spool: Spool, now: float
) -> VersionSummary:
    """Compute a version, stage its files durably, and return the summary for the journal.

    Raises:
        RunError: An update cannot be read, the result is not finite, or the disk refused.
    """
    ref = versions.stage(commit.version, _aggregate(commit, versions, spool))
    return VersionSummary(
        version=commit.version,
        phase=commit.phase,
        at=now,
        sha256=ref.sha256,
        nbytes=ref.nbytes,
        train_loss=_mean(commit.parts, "avg_loss"),
        holdout_before=_mean(commit.parts, "loss_before"),
        holdout_after=_mean(commit.parts, "loss_after"),
        accuracy_before=_mean(commit.parts, "accuracy_before"),
        accuracy_after=_mean(commit.parts, "accuracy_after"),
        updates=tuple(_summarize(part) for part in commit.parts),
    )


def _aggregate(commit: CommitVersion, versions: Versions, spool: Spool) -> Tensors:
    """Return the current version plus the weighted deltas, reading one tensor at a time."""
    tensors = versions.read(commit.version - 1)
    layout = TensorLayout.of(tensors)
    for part in commit.parts:
        add_delta(tensors, part.coefficient, spool.each_tensor(part.update.upload, layout))
    return tensors


def _mean(parts: Sequence[CommitPart], name: str) -> float | None:
    """Return the sample-weighted mean of a statistic over the buffer; None if no update has it."""
    stats = [part.update.stats for part in parts]
    known = [(max(1, s.num_samples), getattr(s, name)) for s in stats]
    known = [(n, value) for n, value in known if value is not None]
    if not known:
        return None
    return float(sum(n * value for n, value in known) / sum(n for n, _ in known))


def _summarize(part: CommitPart) -> UpdateSummary:
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

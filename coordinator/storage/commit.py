"""Commit of a version: the adapter of the next version from the buffered updates in the spool.

On an update's path this comes after `coordinator/aggregation/coefficients.py`. It writes the files
with `coordinator/storage/versions.py`; they get the version's number only once
`coordinator/storage/journal.py`, the next file, has recorded it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from common.protocol import codec
from common.protocol.layout import TensorLayout
from common.protocol.tensors import Array, Tensors
from common.protocol.versions import UpdateSummary, VersionSummary
from coordinator.aggregation.rules.rule import Result, Rule, Step, WeightedUpdate
from coordinator.core.events import CommitPart, CommitVersion
from coordinator.core.state import BufferedUpdate
from coordinator.storage.spool import Spool
from coordinator.storage.versions import Versions, encode_state


@dataclass(frozen=True)
class CachedDelta:
    """An update that an earlier version has applied, and that counts again.

    Attributes:
        coefficient: Factor of the delta; negative where the buffer has a newer one of its client.
        read: Begins to read its tensors, which have the given layout.
    """

    update: BufferedUpdate
    coefficient: float
    read: Callable[[TensorLayout], Iterator[tuple[str, Array]]]


def write_version(
    commit: CommitVersion,
    rule: Rule,
    versions: Versions,
    spool: Spool,
    now: float,
    *,
    begins_phase: bool = False,
    noise_seed: bytes = b"",
    cached: Sequence[CachedDelta] = (),
) -> VersionSummary:
    """Compute a version, stage its files durably, and return the summary for the journal.

    The server's state is forgotten where a phase begins: another objective has other gradients.

    Raises:
        RunError: An update cannot be read, the result is not finite, or the disk refused.
    """
    state = {} if begins_phase else versions.read_state(commit.version - 1)
    made = _aggregate(commit, rule, versions, spool, state, noise_seed, cached)
    new_state, left_out = encode_state(made.state), made.left_out
    tensors = made.tensors
    del made, state
    ref = versions.stage(commit.version, tensors, new_state)
    return VersionSummary(
        version=commit.version,
        phase=commit.phase,
        at=now,
        sha256=ref.sha256,
        nbytes=ref.nbytes,
        ranked=ref.ranked,
        state_sha256=codec.digest(new_state) if new_state else None,
        train_loss=_mean(commit.parts, "avg_loss"),
        holdout_before=_mean(commit.parts, "loss_before"),
        holdout_after=_mean(commit.parts, "loss_after"),
        accuracy_before=_mean(commit.parts, "accuracy_before"),
        accuracy_after=_mean(commit.parts, "accuracy_after"),
        updates=tuple(_summarize(part, left_out) for part in commit.parts),
    )


def _aggregate(
    commit: CommitVersion,
    rule: Rule,
    versions: Versions,
    spool: Spool,
    state: Tensors,
    noise_seed: bytes,
    cached: Sequence[CachedDelta],
) -> Result:
    """Apply the rule to the current version and the updates, which it reads from the spool."""
    newest = commit.version - 1
    current = versions.read(newest)
    layout = TensorLayout.of(current)
    updates = [
        _weighted(part, rule.update_layout(layout, part.update.client_id), spool)
        for part in commit.parts
    ]
    updates += [_again(each, rule.update_layout(layout, each.update.client_id)) for each in cached]
    return rule.apply(Step(commit.version, current, state, updates, versions.read, noise_seed))


def _weighted(part: CommitPart, layout: TensorLayout, spool: Spool) -> WeightedUpdate:
    update = part.update
    return WeightedUpdate(
        update.task_id,
        update.client_id,
        update.base_version,
        part.coefficient,
        partial(spool.each_tensor, update.upload, layout),
        part.weight,
        part.staleness_factor * part.participation_factor * update.clip,
    )


def _again(cached: CachedDelta, layout: TensorLayout) -> WeightedUpdate:
    update = cached.update
    return WeightedUpdate(
        update.task_id,
        update.client_id,
        update.base_version,
        cached.coefficient,
        partial(cached.read, layout),
    )


def _mean(parts: Sequence[CommitPart], name: str) -> float | None:
    """Return the sample-weighted mean of a statistic over the buffer; None if no update has it."""
    stats = [part.update.stats for part in parts]
    known = [(max(1, s.num_samples), getattr(s, name)) for s in stats]
    known = [(n, value) for n, value in known if value is not None]
    if not known:
        return None
    return float(sum(n * value for n, value in known) / sum(n for n, _ in known))


def _summarize(part: CommitPart, left_out: frozenset[str]) -> UpdateSummary:
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
        left_out=part.update.task_id in left_out,
    )

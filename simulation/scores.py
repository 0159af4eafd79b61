"""Scores of updates in a simulated run, for the contribution sources that need any.

They are computed at once, and take no virtual time.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.protocol.layout import TensorLayout
from coordinator.aggregation.rules.factor import aggregate_factors
from coordinator.core.events import LogEvent, UpdateScore
from coordinator.core.state import BufferedUpdate
from coordinator.cosine_scores import CosineScores
from coordinator.scores_source import ScoreRequest
from coordinator.storage.spool import Spool
from coordinator.storage.versions import Versions
from simulation.driver.coordinator import ComputeScores
from simulation.work.parts import LossOf


def no_scores(
    updates: Sequence[BufferedUpdate],
) -> tuple[Sequence[UpdateScore], list[LogEvent]]:
    return [], []


def cosine_scores(versions: Versions, spool: Spool) -> ComputeScores:
    """Return the source of `cosine` scores."""
    source = CosineScores(versions, spool)

    def compute(
        updates: Sequence[BufferedUpdate],
    ) -> tuple[Sequence[UpdateScore], list[LogEvent]]:
        source.request([ScoreRequest.of(update) for update in updates])
        return source.collect()

    return compute


def server_scores(versions: Versions, spool: Spool, loss: LossOf) -> ComputeScores:
    """Return the source of `server` scores: the drop in loss from θ to θ + cΔ."""
    known: dict[int, float] = {}

    def score(update: BufferedUpdate) -> UpdateScore:
        base = update.base_version
        start = versions.read(base)
        if base not in known:
            known[base] = loss(start, base)
        delta = spool.delta(update.upload, TensorLayout.of(start))
        after = loss(aggregate_factors(start, [(update.clip, delta)]), base)
        return UpdateScore(update.task_id, known[base] - after)

    def compute(
        updates: Sequence[BufferedUpdate],
    ) -> tuple[Sequence[UpdateScore], list[LogEvent]]:
        return [score(update) for update in updates], []

    return compute

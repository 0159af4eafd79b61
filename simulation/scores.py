"""Scores of updates in a simulated run, for the contribution sources that need any.

They are computed at once, and take no virtual time.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.protocol.layout import TensorLayout
from coordinator.aggregation.candidate import scored_adapters
from coordinator.aggregation.forms import AdapterForms
from coordinator.aggregation.rules.rule import Rule
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


def cosine_scores(versions: Versions, spool: Spool, rule: Rule) -> ComputeScores:
    """Return the source of `cosine` scores."""
    source = CosineScores(versions, spool, rule)

    def compute(
        updates: Sequence[BufferedUpdate],
    ) -> tuple[Sequence[UpdateScore], list[LogEvent]]:
        source.request([ScoreRequest.of(update) for update in updates])
        return source.collect()

    return compute


def server_scores(
    versions: Versions, spool: Spool, forms: AdapterForms, loss: LossOf
) -> ComputeScores:
    """Return the source of `server` scores: the drop in loss from θ to θ + cΔ."""
    known: dict[tuple[int, int | None], float] = {}

    def score(update: BufferedUpdate) -> UpdateScore:
        base, form = update.base_version, forms.of(update.client_id)
        version = versions.read(base)
        delta = spool.delta(update.upload, form.layout(TensorLayout.of(version)))
        start, candidate = scored_adapters(version, form, update.clip, delta)
        if (base, form.rank) not in known:
            known[base, form.rank] = loss(start, base)
        return UpdateScore(update.task_id, known[base, form.rank] - loss(candidate, base))

    def compute(
        updates: Sequence[BufferedUpdate],
    ) -> tuple[Sequence[UpdateScore], list[LogEvent]]:
        return [score(update) for update in updates], []

    return compute

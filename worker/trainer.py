"""Trainer: turns a task and the adapter of its base version into a delta with statistics.

The base model stays loaded between tasks; a task only writes the adapter's tensors into it. On an
update's path after `worker/models/source.py`; next comes `worker/error_feedback.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import ModelError
from common.protocol.fields import MAX_LOSS
from common.protocol.tasks import TrainTask
from common.protocol.tensors import Tensors
from common.protocol.updates import ContributionStats
from learning.models import lora
from learning.models.lora import AdaptedModel
from learning.objectives import classification, dpo, registry
from learning.training import loop
from learning.training.loop import StepReport
from worker.data.references import References
from worker.data.shards import ClientData, TokenisedShard
from worker.models.loaded import ModelCache

MIN_LOSS = 1e-9  # in nats; the scores of `contribution` divide by it


@dataclass(frozen=True)
class TrainedTask:
    """Result of a task: Δ = θ_local − θ_base, and the statistics that travel with it."""

    delta: Tensors
    stats: ContributionStats


@dataclass(frozen=True)
class IncrementalStart:
    """State of a client that has learned from its users since its last update."""

    unsent: Tensors | None = None  # its own model minus the base version; None if they are equal
    samples: int = 0  # items that were learned
    learned: Sequence[Any] = ()  # rows of the task's kind that belong to the client from now on


NO_START = IncrementalStart()


class Trainer:
    """Trains tasks one after another on one device."""

    def __init__(self, data: ClientData, models: ModelCache, *, evaluation: bool = True) -> None:
        self._data, self._models = data, models
        self._evaluation = evaluation
        self._compute = models.compute

    def train(
        self,
        task: TrainTask,
        base: Path,
        adapter: Tensors,
        references: References,
        on_step: Callable[[StepReport], bool],
        start: IncrementalStart = NO_START,
    ) -> TrainedTask | None:
        """Train a task; return None if `on_step` abandoned it.

        Training begins from `start`, so that what the client has learned from its users becomes a
        part of the delta. The loss before is measured without it, as for every client.

        Args:
            task: The task to train.
            base: Directory of the base model.
            adapter: θ of the task's base version.
            references: Used by `dpo` tasks; the client's lock must be held.
            on_step: Called after each step; False abandons the task.
            start: What the client has learned from its users.

        Raises:
            DataError: The client's rows are not here.
            ModelError: The model does not fit, or training diverged.
        """
        loaded = self._models.load(task.objective, base, task.base.digest, task.lora, task.labels)
        objective = registry.make_objective(
            task.objective, task.dpo, task.labels, prompt=task.prompt
        )
        shard = self._data.load_for_task(task, objective, loaded.tokenizer)
        if start.learned:
            length = task.training.max_length
            more = objective.encode(loaded.tokenizer, start.learned, length).examples
            shard = replace(shard, train=[*shard.train, *more])
        if task.reference is not None:
            shard = self._with_references(loaded.model, shard, task.reference.sha256, references)
        if task.objective == "classification":
            shard = _with_logit_adjustment(shard, task)
        lora.write_adapter(loaded.model, adapter)
        autocast = self._compute.autocast
        before = objective.measure(loaded.model, shard.holdout, autocast=autocast)
        if start.unsent is not None:
            begun = {name: adapter[name] + start.unsent[name] for name in adapter}
            lora.write_adapter(loaded.model, begun)
        result = loop.train(
            loaded.model,
            objective,
            shard.train,
            task.training,
            on_step,
            seed=task.seed,
            autocast=autocast,
        )
        if result.stopped:
            return None
        after = objective.measure(loaded.model, shard.holdout, autocast=autocast)
        local = lora.read_adapter(loaded.model)
        delta = {name: local[name] - adapter[name] for name in local}
        stats = ContributionStats(
            num_samples=len(shard.train),
            num_tokens=result.tokens,
            steps=result.steps,
            avg_loss=_reported_loss(result.avg_loss),
            loss_before=_reported_loss(before.loss),
            loss_after=_reported_loss(after.loss),
            train_seconds=result.seconds,
            delta_norm=l2_norm(delta),
            accuracy_before=before.accuracy,
            accuracy_after=after.accuracy,
            incremental_samples=start.samples,
        )
        return TrainedTask(delta, stats)

    def _with_references(
        self, model: AdaptedModel, shard: TokenisedShard, version: str, references: References
    ) -> TokenisedShard:

        def with_references(pairs: Sequence[dpo.TokenisedPair]) -> tuple[dpo.TokenisedPair, ...]:
            def compute(reference: Tensors) -> list[tuple[float, float]]:
                lora.write_adapter(model, reference)
                return dpo.log_probabilities(model, pairs, autocast=self._compute.autocast)

            return dpo.with_reference(pairs, references.log_probabilities(version, pairs, compute))

        return TokenisedShard(with_references(shard.train), with_references(shard.holdout))


def _with_logit_adjustment(shard: TokenisedShard, task: TrainTask) -> TokenisedShard:
    strength = task.training.logit_adjustment
    return replace(
        shard, train=classification.with_logit_adjustment(shard.train, len(task.labels), strength)
    )


def l2_norm(tensors: Tensors) -> float:
    return math.sqrt(sum(float(np.square(t, dtype=np.float64).sum()) for t in tensors.values()))


def _reported_loss(loss: float) -> float:
    """Return a loss within the limits of the record.

    A pair that is learned to perfection has a loss of 0, which the record does not allow.

    Raises:
        ModelError: The loss is larger than a record holds.
    """
    if loss > MAX_LOSS:
        raise ModelError(
            f"a loss of {loss:.3g} is over {MAX_LOSS:g}, which no update may report",
            "lower phase.lr; with preference_loss ipo raise phase.beta, the loss begins at 1/(2β)²",
        )
    return max(loss, MIN_LOSS)

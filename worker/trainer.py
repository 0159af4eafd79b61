"""Trainer: turns a task and the adapter of its base version into a delta with statistics.

The base model stays loaded between tasks; a task only writes the adapter's tensors into it. On an
update's path after `worker/models/source.py`; next comes `worker/error_feedback.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from common.errors import ModelError
from common.protocol.adapter_form import AdapterForm
from common.protocol.fields import MAX_LOSS
from common.protocol.tasks import TrainTask
from common.protocol.tensors import Tensors
from common.protocol.updates import ContributionStats
from learning.evaluation.inference import row_nats
from learning.evaluation.measurement import Measurement
from learning.models import lora
from learning.models.lora import AdaptedModel
from learning.models.precision import FLOAT32, WeightFormat
from learning.objectives import classification, registry
from learning.objectives.plugins import extend_objective
from learning.objectives.registry import Objective
from learning.training import loop
from learning.training.checkpointing import can_checkpoint
from learning.training.loop import StepReport
from learning.training.memory import FittedMemory, after_crashes
from worker.data.references import Answers, References
from worker.data.shards import ClientData, TokenisedShard
from worker.data.task_rows import TaskRows, select_rows
from worker.models.loaded import ModelCache
from worker.task_clock import TaskClock

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
    """Trains tasks one after another on one device; without `evaluation` it measures no holdout."""

    def __init__(
        self,
        data: ClientData,
        models: ModelCache,
        memory: FittedMemory | None = None,
        *,
        evaluation: bool = True,
    ) -> None:
        self._data, self._models = data, models
        self._memory = memory or FittedMemory()
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
        clock: TaskClock | None = None,
        crashes: int = 0,
    ) -> TrainedTask | None:
        """Train a task; return None if `on_step` abandoned it.

        Training begins from `start`, so that what the client has learned from its users becomes a
        part of the delta. The loss before is measured without it, as for every client.

        Args:
            task: The task to train.
            base: Directory of the base model.
            adapter: θ of the task's base version.
            references: Used where a task names a reference; the client's lock must be held.
            on_step: Called after each step; False abandons the task.
            start: What the client has learned from its users.
            clock: Measures the parts of the task.
            crashes: How often this worker was killed while it trained the task.

        Raises:
            DataError: The client's rows are not here.
            ConfigError: The plug-in of the task is not installed, or refuses its options.
            ModelError: The model does not fit, or training diverged.
        """
        clock = clock or TaskClock()
        with clock.part("load"):
            loaded = self._models.load(
                task.objective, base, task.base.digest, task.lora, task.labels, task.precision
            )
            objective = registry.make_objective(
                task.objective, task.dpo or task.kto, task.labels, prompt=task.prompt
            )
            if task.plugin is not None:
                objective = extend_objective(objective, task.plugin)
            shard = self._load_rows(task, objective, loaded.tokenizer, start)
            rows = select_rows(shard, task.training, task.seed, self._budget(task))
        train, measured = shard.train, rows.measured
        if task.reference is not None:
            version = f"{task.reference.sha256}{self._weights_key(loaded.weights)}"
            known = _Reference(loaded.model, objective, version, references)
            with clock.part("reference"):
                train, measured = self._with_reference(known, train, rows)
        with clock.part("load"):
            lora.write_adapter(loaded.model, adapter)
        with clock.part("measure"):
            before = self._measure(loaded.model, objective, measured)
        if start.unsent is not None:
            begun = {name: adapter[name] + start.unsent[name] for name in adapter}
            lora.write_adapter(loaded.model, begun)
        kind = (task.base.digest, task.precision, task.lora, task.objective)
        lora.freeze_a(loaded.model, frozen=task.frozen is not None)
        result = loop.train(
            loaded.model,
            objective,
            train,
            task.training,
            on_step,
            seed=task.seed,
            autocast=self._compute.autocast,
            memory=after_crashes(
                self._memory.get(kind),
                crashes,
                task.training.batch_size,
                can_checkpoint=can_checkpoint(loaded.model),
            ),
        )
        self._memory.remember(kind, result.memory)
        if result.stopped:
            return None
        with clock.part("measure"):
            after = self._measure(loaded.model, objective, measured)
        with clock.part("encode"):
            form = AdapterForm(frozen=task.frozen is not None)
            local = form.of(lora.read_adapter(loaded.model))
            delta = {name: local[name] - adapter[name] for name in local}
            delta, norm = clip_to_norm(delta, task.clip_norm)
        stats = ContributionStats(
            num_samples=len(train),
            num_tokens=result.tokens,
            steps=result.steps,
            avg_loss=_reported_loss(result.avg_loss),
            loss_before=_reported_loss(before.loss) if before else None,
            loss_after=_reported_loss(after.loss) if after else None,
            train_seconds=result.seconds,
            delta_norm=norm,
            accuracy_before=before.accuracy if before else None,
            accuracy_after=after.accuracy if after else None,
            incremental_samples=start.samples,
        )
        return TrainedTask(delta, stats)

    def _budget(self, task: TrainTask) -> float | None:
        return task.holdout_budget if self._evaluation else 0.0

    def _weights_key(self, weights: WeightFormat) -> str:
        """Return what the values of a reference depend on, besides its version, on this machine."""
        autocast = " under autocast" if self._compute.autocast else ""
        return "" if weights == FLOAT32 and not autocast else f" {weights.describe()}{autocast}"

    def _load_rows(
        self,
        task: TrainTask,
        objective: Objective,
        tokenizer: PreTrainedTokenizerBase,
        start: IncrementalStart,
    ) -> TokenisedShard:
        """Return the client's rows, with those that it has learned from its users."""
        shard = self._data.load_for_task(task, objective, tokenizer)
        if start.learned:
            more = objective.encode(tokenizer, start.learned, task.training.max_length).examples
            shard = replace(shard, train=[*shard.train, *more])
        if task.objective == "classification":
            shard = _with_logit_adjustment(shard, task)
        return shard

    def _measure(
        self, model: AdaptedModel, objective: Objective, examples: Sequence[Any]
    ) -> Measurement | None:
        if not examples:
            return None
        return objective.measure(model, examples, autocast=self._compute.autocast)

    def _with_reference(
        self, known: _Reference, train: Sequence[Any], rows: TaskRows
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        """Return training and measured examples; those that the task uses have their log π_ref."""
        used = sorted(rows.used)
        found = known.add([*(train[i] for i in used), *rows.measured], self._compute.autocast)
        train = list(train)
        for i, example in zip(used, found, strict=False):
            train[i] = example
        return train, found[len(used) :]


@dataclass(frozen=True)
class _Reference:
    """The model π_ref of a task, and what is known about it."""

    model: AdaptedModel  # of the task; its adapter is overwritten if values are missing
    objective: Objective
    version: str  # that the values are kept by
    references: References

    def add(self, examples: Sequence[Any], autocast: bool) -> list[Any]:
        """Return examples with log π_ref of their answers."""

        def compute(theta: Tensors, missing: Answers) -> list[float]:
            lora.write_adapter(self.model, theta)
            return [-nats for nats in row_nats(self.model, missing, autocast=autocast)]

        answers = [self.objective.answers(example) for example in examples]
        flat = [answer for own in answers for answer in own]
        nats = iter(self.references.log_probabilities(self.version, flat, compute))
        return [
            self.objective.with_reference(example, list(islice(nats, len(own))))
            for example, own in zip(examples, answers, strict=True)
        ]


def _with_logit_adjustment(shard: TokenisedShard, task: TrainTask) -> TokenisedShard:
    strength = task.training.logit_adjustment
    return replace(
        shard, train=classification.with_logit_adjustment(shard.train, len(task.labels), strength)
    )


def l2_norm(tensors: Tensors) -> float:
    return math.sqrt(sum(float(np.square(t, dtype=np.float64).sum()) for t in tensors.values()))


def clip_to_norm(delta: Tensors, limit: float | None) -> tuple[Tensors, float]:
    """Return a delta scaled down to an L2 norm of at most `limit`, over all tensors, and its norm.

    None does not limit it.
    """
    norm = l2_norm(delta)
    if limit is None or norm <= limit:
        return delta, norm
    factor = np.float32(limit / norm)
    clipped = {name: factor * tensor for name, tensor in delta.items()}
    return clipped, l2_norm(clipped)


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

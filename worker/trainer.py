"""From a task and the adapter of its base version to a delta with statistics.

The base model stays loaded between tasks; a task only writes the adapter's tensors into it. After
`worker/service.py` on an update's way, before `common/codec.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from common.records import ContributionStats, LocalTraining, LoraSpec, TrainTask
from common.tensors import Tensors
from learning import loading, loop, lora
from learning.device import Compute
from learning.evaluation import evaluate
from learning.loop import StepReport
from learning.sft import sft
from worker.data import Data

OBJECTIVES = {"sft": sft}
EVALUATION_BATCH = 16


@dataclass(frozen=True)
class Trained:
    """What a task produced: Δ = θ_local − θ_base, and what is told about it."""

    delta: Tensors
    stats: ContributionStats


@dataclass(frozen=True)
class _Loaded:
    digest: str
    lora: LoraSpec
    model: PeftModel
    tokenizer: PreTrainedTokenizerBase


class Trainer:
    """Trains tasks one after another on one device."""

    def __init__(self, data: Data, compute: Compute) -> None:
        self._data = data
        self._compute = compute
        self._loaded: _Loaded | None = None

    def train(
        self,
        task: TrainTask,
        base: Path,
        adapter: Tensors,
        on_step: Callable[[StepReport], bool],
    ) -> Trained | None:
        """Train a task; None if `on_step` abandoned it.

        Args:
            task: What to train.
            base: Directory of the base model that the task names.
            adapter: θ of the task's base version.
            on_step: Called after each step; False abandons.

        Raises:
            DataError: The client's rows are not here.
            ModelError: The model does not fit, or training diverged.
        """
        loaded = self._load(task, base)
        shard = self._data.shard(task.client_id, loaded.tokenizer, task.training.max_length)
        lora.write_adapter(loaded.model, adapter)
        autocast = self._compute.autocast
        before = evaluate(loaded.model, shard.holdout, EVALUATION_BATCH, autocast=autocast)
        result = loop.train(
            loaded.model,
            OBJECTIVES[task.objective],
            shard.train,
            _settings(task.training, task.seed, autocast),
            on_step,
        )
        if result.stopped:
            return None
        after = evaluate(loaded.model, shard.holdout, EVALUATION_BATCH, autocast=autocast)
        local = lora.read_adapter(loaded.model)
        delta = {name: local[name] - adapter[name] for name in local}
        stats = ContributionStats(
            num_samples=len(shard.train),
            num_tokens=result.tokens,
            steps=result.steps,
            avg_loss=result.avg_loss,
            loss_before=before.nats_per_token,
            loss_after=after.nats_per_token,
            train_seconds=result.seconds,
            delta_norm=norm(delta),
        )
        return Trained(delta, stats)

    def _load(self, task: TrainTask, base: Path) -> _Loaded:
        now = self._loaded
        if now and (now.digest, now.lora) == (task.base.digest, task.lora):
            return now
        self._loaded = None  # the old one's memory first
        found = loading.load(base, self._compute.device)
        model = lora.attach(found.model, task.lora, seed=0)  # its tensors are overwritten
        self._loaded = _Loaded(task.base.digest, task.lora, model, found.tokenizer)
        return self._loaded


def norm(tensors: Tensors) -> float:
    """L2 norm over all tensors."""
    return math.sqrt(sum(float(np.square(t, dtype=np.float64).sum()) for t in tensors.values()))


def _settings(training: LocalTraining, seed: int, autocast: bool) -> loop.LocalTraining:
    return loop.LocalTraining(
        batch_size=training.batch_size,
        lr=training.lr,
        steps=training.steps or None,
        epochs=training.epochs or None,
        max_grad_norm=training.max_grad_norm,
        prox_mu=training.prox_mu,
        seed=seed,
        autocast=autocast,
    )

"""Local training: a few steps of AdamW from the current version, on one client's examples.

A task is short (tens of steps), starts from the global adapter and ends in a delta. The optimizer
is therefore fresh for every task: moments of another version would not belong to these weights.

Data path: `learning.models.lora.write_adapter` (version in) → here →
`learning.models.lora.read_adapter` (delta out), all called by `worker.trainer`. Next:
`worker.error_feedback`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from common.errors import ModelError
from common.protocol.tasks import LocalTraining
from learning.objectives.registry import Objective
from learning.training.accumulation import BatchGradient, GradientAccumulator
from learning.training.batches import Example, batches_per_epoch, shuffled_batches
from learning.training.fast_path import fast_path
from learning.training.memory import AUTOMATIC, MemorySettings

BETAS = (0.5, 0.99)
"""Decay of AdamW's moments.

Shorter than the usual (0.9, 0.999): a task of 5 to 10 steps that starts without moments would end
before those averages mean anything. Measured on four skewed clients, this is worth a tenth of
central training's gain.
"""


@dataclass(frozen=True)
class StepReport:
    """Progress of a task after one step: 1-based `step` of `steps`, loss in nats, tokens so far."""

    step: int
    steps: int
    loss: float
    tokens: int
    seconds: float


@dataclass(frozen=True)
class TrainResult:
    """Totals of a task."""

    steps: int
    samples: int  # examples seen, repetitions counted
    tokens: int  # prompts count, padding does not
    avg_loss: float  # over the learned positions of all steps, in nats
    seconds: float  # wall-clock time
    stopped: bool  # `on_step` abandoned the task; the model is half trained
    memory: MemorySettings  # with which its batches fitted into memory


def train(
    model: torch.nn.Module,
    objective: Objective,
    examples: Sequence[Example],
    training: LocalTraining,
    on_step: Callable[[StepReport], bool] = lambda _: True,
    *,
    seed: int = 0,
    autocast: bool = False,
    decay: bool = False,
    memory: MemorySettings = AUTOMATIC,
) -> TrainResult:
    """Train the parameters that require a gradient, in place.

    The same model, examples, arguments and thread count give the same bits on the CPU; the caller's
    random state is left alone.

    Args:
        examples: At least one.
        on_step: Called after each step; False abandons the task.
        seed: Seed of batch order and dropout.
        autocast: Compute in bfloat16 where torch deems it safe; see `learning.training.device`.
        decay: Lower the learning rate linearly, to lr/steps at the last step, instead of keeping it
            constant. The end of a task is then less noisy than its last batches, which is good
            where the result is judged by itself and not averaged with others'.
        memory: How a batch goes through the model; the order of the batches and, but for rounding
            and dropout, the result do not depend on it.

    Raises:
        ModelError: The loss or its gradient is not finite, or memory does not suffice for one
            example.
    """
    steps = total_steps(training, len(examples))
    weights = [p for p in model.parameters() if p.requires_grad]
    anchors = [p.detach().clone() for p in weights] if training.prox_mu else []
    optimizer = torch.optim.AdamW(
        weights, lr=training.lr, betas=BETAS, eps=objective.eps, weight_decay=0.0
    )
    device = weights[0].device
    accumulator = GradientAccumulator(model, objective, weights, memory, autocast=autocast)
    batches = shuffled_batches(examples, training.batch_size, seed)
    total, done, start = _Totals(), True, time.perf_counter()
    model.train(objective.dropout)
    forked = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    with forked, fast_path(model, autocast=autocast):
        torch.manual_seed(seed)  # dropout
        for step in range(1, steps + 1):
            found = accumulator.compute(next(batches))
            loss = _clip(found.loss, training, weights=weights, anchors=anchors)
            _check(loss, step, training)
            if decay:
                optimizer.param_groups[0]["lr"] = training.lr * (steps - step + 1) / steps
            optimizer.step()
            total.add(found)
            report = StepReport(step, steps, loss, total.tokens, time.perf_counter() - start)
            if not (done := on_step(report)):
                break
    seconds = time.perf_counter() - start
    return total.result(seconds, stopped=not done, memory=accumulator.memory)


def total_steps(training: LocalTraining, examples: int) -> int:
    """Return the number of optimizer steps that a task with so many examples takes."""
    return training.steps or training.epochs * batches_per_epoch(examples, training.batch_size)


def _clip(
    loss: float,
    training: LocalTraining,
    *,
    weights: Sequence[torch.Tensor],
    anchors: Sequence[torch.Tensor],
) -> float:
    """Add the proximal term's gradient, clip the sum, and return the loss without that term.

    The loss is NaN where the gradient is not finite: such a gradient cannot be clipped.
    """
    for weight, anchor in zip(weights, anchors, strict=False):  # no anchors without FedProx
        if weight.grad is not None:
            weight.grad.add_(weight.detach() - anchor, alpha=training.prox_mu)
    norm = float(torch.nn.utils.clip_grad_norm_(weights, training.max_grad_norm))
    return loss if math.isfinite(norm) else math.nan


def _check(loss: float, step: int, training: LocalTraining) -> None:
    if not math.isfinite(loss):
        raise ModelError(
            f"training diverged: no finite loss at local step {step} (lr {training.lr:g})",
            "lower the learning rate, or look for broken rows in this client's data",
        )


class _Totals:
    """Running sums of a task."""

    def __init__(self) -> None:
        self.steps = self.samples = self.tokens = self.target_count = 0
        self.nats = 0.0

    def add(self, batch: BatchGradient) -> None:
        self.steps += 1
        self.samples += batch.size
        self.tokens += batch.tokens
        self.target_count += batch.target_count
        self.nats += batch.loss * batch.target_count

    def result(self, seconds: float, *, stopped: bool, memory: MemorySettings) -> TrainResult:
        mean = self.nats / self.target_count if self.target_count else 0.0
        return TrainResult(self.steps, self.samples, self.tokens, mean, seconds, stopped, memory)

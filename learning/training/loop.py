"""Local training: a few steps of AdamW from the current version, on one client's examples.

A task is short (tens of steps), starts from the global adapter and ends in a delta. The optimizer
is therefore fresh for every task: moments of another version would not belong to these weights.

Data path: `learning.models.lora.write_adapter` (version in) → here → `learning.models.lora.read_adapter` (delta
out), all called by `worker.trainer`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from common.errors import ModelError
from learning.objectives.registry import Objective
from learning.training.batches import Batch, Example, batches_per_epoch, shuffled_batches
from learning.training.fast_path import fast_path


@dataclass(frozen=True)
class LocalTraining:
    """How to train; exactly one of `steps` and `epochs` is set.

    Attributes:
        batch_size: Examples per step, at most.
        lr: Learning rate of AdamW (no weight decay).
        steps: Optimizer steps.
        epochs: Passes over the examples.
        max_grad_norm: The gradient is scaled down to this Euclidean norm.
        prox_mu: FedProx (Li et al. 2020): adds μ/2·‖θ − θ_start‖² to the loss; 0 is off.
        seed: Of batch order and dropout.
        betas: Decay of AdamW's moments. Shorter than the usual (0.9, 0.999): a task of 5 to 10
            steps that starts without moments would end before those averages mean anything.
            Measured on four skewed clients, this is worth a tenth of central training's gain.
        autocast: Compute in bfloat16 where torch deems it safe; see `learning.training.device`.
        decay: The learning rate falls linearly, to lr/steps at the last step; else it is constant.
            The end of a task is then no longer as noisy as its last batches, which is good where
            the outcome is judged by itself and not averaged with others'.
    """

    batch_size: int
    lr: float
    steps: int | None = None
    epochs: int | None = None
    max_grad_norm: float = 1.0
    prox_mu: float = 0.0
    seed: int = 0
    autocast: bool = False
    betas: tuple[float, float] = (0.5, 0.99)
    decay: bool = False

    def total_steps(self, examples: int) -> int:
        """Optimizer steps that a task with so many examples takes."""
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("set exactly one of steps and epochs")
        if self.steps is not None:
            return self.steps
        return (self.epochs or 0) * batches_per_epoch(examples, self.batch_size)


@dataclass(frozen=True)
class StepReport:
    """What `on_step` is told after each step: 1-based `step` of `steps`, loss in nats, tokens."""

    step: int
    steps: int
    loss: float
    tokens: int
    seconds: float


@dataclass(frozen=True)
class TrainResult:
    """What a task did.

    Attributes:
        steps: Optimizer steps taken.
        samples: Examples seen, repetitions counted.
        tokens: Tokens seen, prompts included, padding not.
        avg_loss: Mean loss over the learned positions of all steps, in nats.
        seconds: Wall-clock time.
        stopped: `on_step` asked to abandon the task; the model is left half trained.
    """

    steps: int
    samples: int
    tokens: int
    avg_loss: float
    seconds: float
    stopped: bool


def train(
    model: torch.nn.Module,
    objective: Objective,
    examples: Sequence[Example],
    settings: LocalTraining,
    on_step: Callable[[StepReport], bool] = lambda _: True,
) -> TrainResult:
    """Trains the parameters that require a gradient, in place.

    The same model, examples, settings and thread count give the same bits on the CPU; the caller's
    random state is left alone.

    Args:
        model: On its device; put into training mode if the objective wants dropout.
        objective: What to minimise.
        examples: At least one.
        settings: How.
        on_step: Called after each step; False abandons the task.

    Raises:
        ModelError: The loss or its gradient is not finite.
    """
    steps = settings.total_steps(len(examples))
    weights = [p for p in model.parameters() if p.requires_grad]
    anchors = [p.detach().clone() for p in weights] if settings.prox_mu else []
    optimizer = torch.optim.AdamW(
        weights, lr=settings.lr, betas=settings.betas, eps=objective.eps, weight_decay=0.0
    )
    device = weights[0].device
    collate: Callable[..., Batch] = partial(objective.collate, device=device)
    batches = shuffled_batches(examples, settings.batch_size, settings.seed, collate)
    total, done, start = _Totals(), True, time.perf_counter()
    model.train(objective.dropout)
    forked = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    with forked, fast_path(model, autocast=settings.autocast):
        torch.manual_seed(settings.seed)  # dropout
        for step in range(1, steps + 1):
            batch = next(batches)
            loss = _gradient(model, objective, batch, settings, weights=weights, anchors=anchors)
            _check(loss, step, settings)
            if settings.decay:
                optimizer.param_groups[0]["lr"] = settings.lr * (steps - step + 1) / steps
            optimizer.step()
            total.add(batch, loss)
            report = StepReport(step, steps, loss, total.tokens, time.perf_counter() - start)
            if not (done := on_step(report)):
                break
    return total.result(time.perf_counter() - start, stopped=not done)


def _gradient(
    model: torch.nn.Module,
    objective: Objective,
    batch: Batch,
    settings: LocalTraining,
    *,
    weights: Sequence[torch.Tensor],
    anchors: Sequence[torch.Tensor],
) -> float:
    """Leaves the clipped gradient in the weights and gives the loss, proximal term excluded.

    Not a number where the gradient is not finite, since such a gradient clips to no number.
    """
    for weight in weights:
        weight.grad = None
    with torch.autocast(weights[0].device.type, torch.bfloat16, enabled=settings.autocast):
        loss, _ = objective.loss(model, batch)
    loss.backward()
    for weight, anchor in zip(weights, anchors, strict=False):  # no anchors without FedProx
        if weight.grad is not None:
            weight.grad.add_(weight.detach() - anchor, alpha=settings.prox_mu)
    norm = float(torch.nn.utils.clip_grad_norm_(weights, settings.max_grad_norm))
    return float(loss.detach()) if math.isfinite(norm) else math.nan


def _check(loss: float, step: int, settings: LocalTraining) -> None:
    if not math.isfinite(loss):
        raise ModelError(
            f"training diverged: no finite loss at local step {step} (lr {settings.lr:g})",
            "lower the learning rate, or look for broken rows in this client's data",
        )


class _Totals:
    """Running sums of a task."""

    def __init__(self) -> None:
        self.steps = self.samples = self.tokens = self.target_count = 0
        self.nats = 0.0

    def add(self, batch: Batch, loss: float) -> None:
        self.steps += 1
        self.samples += batch.size
        self.tokens += batch.tokens
        self.target_count += batch.target_count
        self.nats += loss * batch.target_count

    def result(self, seconds: float, *, stopped: bool) -> TrainResult:
        mean = self.nats / self.target_count if self.target_count else 0.0
        return TrainResult(self.steps, self.samples, self.tokens, mean, seconds, stopped)

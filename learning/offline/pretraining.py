"""Progress, learning rate and loop of steps that the training of both offline models shares.

In the data path: used by `learning.offline.causal_pretraining` for the GPT-2 and by
`learning.offline.encoder_pretraining` for the BERT.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from learning.progress import ProgressCallback


class StepSettings(Protocol):
    """Number and size of the optimizer steps, peak learning rates, and the seed of their order."""

    @property
    def steps(self) -> int: ...

    @property
    def batch(self) -> int: ...

    @property
    def rate(self) -> float: ...

    @property
    def embedding_rate(self) -> float: ...

    @property
    def seed(self) -> int: ...


def sub_progress(
    on_progress: ProgressCallback, message: str, start: float, end: float
) -> Callable[[float], None]:
    """Return a callback that maps a part's progress, 0 to 1, to `start` to `end` of the whole."""
    return lambda done: on_progress(message, start + (end - start) * done)


def schedule(step: int, steps: int) -> float:
    """Return the factor of the learning rate: ten steps up, level, then down to 0 over 60 %."""
    return min(1.0, (step + 1) / 10, (steps - step) / (0.6 * steps))


def run_steps(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    rows: Tensor,
    settings: StepSettings,
    step_loss: Callable[[Tensor, int, torch.Generator], Tensor],
    on_progress: Callable[[float], None],
) -> None:
    """Train a model in place on rows of tokens, each pass in a new order.

    Args:
        optimizer: With two groups of parameters: embeddings, then blocks.
        rows: Token ids, (R, T).
        step_loss: Called with a batch (B, T), the step's number from 0 and the generator that also
            orders the rows; returns the loss to minimise.
        on_progress: Called with the share of steps done, from 0 to 1.
    """
    draw = torch.Generator().manual_seed(settings.seed)
    rates = (settings.embedding_rate, settings.rate)
    order = torch.empty(0, dtype=torch.int64)
    for step in range(settings.steps):
        if len(order) < settings.batch:
            order = torch.randperm(len(rows), generator=draw)
        batch, order = rows[order[: settings.batch]], order[settings.batch :]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * schedule(step, settings.steps)
        step_loss(batch, step, draw).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        on_progress((step + 1) / settings.steps)

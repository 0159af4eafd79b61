"""Gradient of a batch that goes through the model in parts.

The parts (micro-batches) bound the memory for activations. An objective divides the loss of a part
by the counts of the whole batch, so that losses and gradients of the parts add up to those of the
whole.

Data path: `learning.training.batches` (examples of a batch) → here → the step of
`learning.training.loop`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from learning.objectives.registry import Objective
from learning.training.batches import Batch
from learning.training.memory import MemorySettings


@dataclass(frozen=True)
class BatchGradient:
    """Loss and counts of a batch whose gradient the weights hold."""

    loss: float
    size: int  # examples
    tokens: int  # that are not padding
    target_count: int  # response tokens, pairs or texts of which the loss is a mean


class GradientAccumulator:
    """Computes gradients of batches in parts that fit into memory."""

    def __init__(
        self,
        model: torch.nn.Module,
        objective: Objective,
        weights: Sequence[torch.nn.Parameter],
        memory: MemorySettings,
        *,
        autocast: bool,
    ) -> None:
        self._model, self._objective, self._weights = model, objective, weights
        self._memory, self._autocast = memory, autocast
        self._device = weights[0].device

    def compute(self, examples: Sequence[Any]) -> BatchGradient:
        """Leave the gradient of a batch in the weights, and return its loss and counts."""
        size = min(self._memory.micro_batch or len(examples), len(examples))
        for weight in self._weights:
            weight.grad = None
        with self._autocast_context():
            whole = self._objective.prepare_batch(self._model, examples, size)
        loss, tokens, target_count = 0.0, 0, 0
        for start in range(0, len(whole), size):
            part: Batch = self._objective.collate(
                whole[start : start + size], device=self._device, whole=whole
            )
            with self._autocast_context():
                value, _ = self._objective.loss(self._model, part)
            torch.autograd.backward(value)
            loss += float(value.detach())
            tokens += part.tokens
            target_count += part.target_count
        return BatchGradient(loss, len(whole), tokens, target_count)

    def _autocast_context(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast)

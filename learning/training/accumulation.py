"""Gradient of a batch that goes through the model in parts.

The parts (micro-batches) bound the memory for activations. An objective divides the loss of a part
by the counts of the whole batch, so that losses and gradients of the parts add up to those of the
whole. When memory runs out, the batch is repeated in smaller parts.

Data path: `learning.training.batches` (examples of a batch) → here → the step of
`learning.training.loop`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from common.errors import ModelError
from learning.objectives.registry import Objective
from learning.training.batches import Batch
from learning.training.checkpointing import can_checkpoint, checkpointed
from learning.training.memory import MemorySettings
from learning.training.out_of_memory import REMEDY, free_memory, noting_out_of_memory


@dataclass(frozen=True)
class BatchGradient:
    """Loss and counts of a batch whose gradient the weights hold."""

    loss: float
    size: int  # examples
    tokens: int  # that are not padding
    target_count: int  # response tokens, pairs or texts of which the loss is a mean


class GradientAccumulator:
    """Computes gradients of batches in parts that fit into memory.

    Attributes:
        memory: The settings by which the next batch is computed; they shrink when memory runs out.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        objective: Objective,
        weights: Sequence[torch.nn.Parameter],
        memory: MemorySettings,
        *,
        autocast: bool,
    ) -> None:
        """Raise `ModelError` if checkpointing is requested of a model that has no blocks."""
        self._model, self._objective, self._weights = model, objective, weights
        self._autocast = autocast
        self._device = weights[0].device
        self.memory = memory
        if memory.checkpointing and not can_checkpoint(model):
            raise ModelError(
                "this model has no blocks for activation checkpointing",
                "leave the worker's setting checkpointing at auto",
            )

    def compute(self, examples: Sequence[Any]) -> BatchGradient:
        """Leave the gradient of a batch in the weights, and return its loss and counts.

        Raises:
            ModelError: Memory does not suffice for one example.
        """
        state = _random_state(self._device)
        while True:
            size = min(self.memory.micro_batch or len(examples), len(examples))
            with noting_out_of_memory() as failed:
                return self._compute(examples, size)
            assert failed, "only then is the block left without a return"
            self._clear_gradient()
            free_memory()
            self.memory = self._smaller(size, examples)
            _set_random_state(state, self._device)

    def _compute(self, examples: Sequence[Any], size: int) -> BatchGradient:
        self._clear_gradient()
        with self._autocast_context():
            whole = self._objective.prepare_batch(self._model, examples, size)
        loss, tokens, target_count = 0.0, 0, 0
        with checkpointed(self._model, enabled=bool(self.memory.checkpointing)):
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

    def _smaller(self, size: int, examples: Sequence[Any]) -> MemorySettings:
        """Return settings that need less memory than those that failed with parts of a size."""
        if size > 1:
            return replace(self.memory, micro_batch=size // 2)
        if self.memory.checkpointing is None and can_checkpoint(self._model):
            return MemorySettings(micro_batch=1, checkpointing=True)
        longest = max(example.length for example in examples)
        raise ModelError(f"out of memory at one example of {longest} tokens", REMEDY)

    def _clear_gradient(self) -> None:
        for weight in self._weights:
            weight.grad = None

    def _autocast_context(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast)


def _random_state(device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    own = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), own


def _set_random_state(
    state: tuple[torch.Tensor, torch.Tensor | None], device: torch.device
) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)

"""Result of measuring a model with any objective, and the mode in which models are measured.

In the data path: `learning.objectives` produce a `Measurement` before and after a task; it goes
into the update that `worker.trainer` makes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Measurement:
    """How a model does on a set of examples."""

    loss: float  # mean of the objective, in nats
    accuracy: float | None = None  # of pairs or texts; None where nothing is right or wrong


@contextmanager
def evaluation_mode(model: torch.nn.Module, *, autocast: bool = False) -> Iterator[None]:
    """Run a model without dropout and gradients, and restore its mode afterwards."""
    was_training = model.training
    device = next(model.parameters()).device
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            yield
    finally:
        model.train(was_training)

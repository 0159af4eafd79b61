"""Rule `factor`, the sum of the step: the current version plus the weighted deltas.

`coordinator/storage/commit.py` feeds it the buffer's deltas from the spool, with the coefficients
of `coordinator/aggregation/coefficients.py`, and `coordinator/storage/versions.py` makes the result
durable.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from common.protocol.layout import TensorLayout
from common.protocol.tensors import Array, Tensors
from coordinator.aggregation.rules.rule import Result, Step


class FactorRule:
    """Mean of LoRA's factors A and B, each by itself."""

    def update_layout(self, layout: TensorLayout, client_id: str) -> TensorLayout:
        return layout

    def apply(self, step: Step) -> Result:
        # Tensor by tensor, so that memory holds one tensor of one update.
        for update in step.updates:
            add_delta(step.current, update.coefficient, update.tensors())
        return Result(step.current)


def aggregate_factors(current: Tensors, deltas: Iterable[tuple[float, Tensors]]) -> Tensors:
    """Return θ_{t+1} = θ_t + Σ kᵢ Δᵢ, tensor by tensor: LoRA's factors A and B separately.

    Deltas are consumed one at a time, so that memory holds one update however large the buffer is.

    Source: FedIT (Zhang et al., "Towards Building the Federated GPT", 2023) averages the factors;
    FedBuff (Nguyen et al., 2022) adds discounted deltas. The mean of Bᵢ Aᵢ differs from the
    product of the means in second order of the local drift.

    Args:
        current: θ_t, float32 tensors by name.
        deltas: Coefficient kᵢ and delta Δᵢ of each update; Δᵢ has the shapes of `current`.
    """
    result = dict(current)
    for coefficient, delta in deltas:
        add_delta(result, coefficient, delta.items())
    return result


def add_delta(result: Tensors, coefficient: float, delta: Iterable[tuple[str, Array]]) -> None:
    """Replace each tensor of a sum by the one with kᵢ Δᵢ added.

    The delta is consumed tensor by tensor, so that memory holds one of its tensors at a time.
    """
    for name, tensor in delta:
        result[name] = result[name] + np.float32(coefficient) * tensor

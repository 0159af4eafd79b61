"""The next version from the current one and the buffer: `factor` aggregation.

Last pure step of an update's way; `coordinator/storage/commit.py` feeds it from the spool and
`coordinator/storage/journal.py` records what came of it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from common.protocol.tensors import Tensors


def aggregate_factors(current: Tensors, deltas: Iterable[tuple[float, Tensors]]) -> Tensors:
    """θ_{t+1} = θ_t + Σ c_i Δ_i, tensor by tensor: the LoRA factors A and B separately.

    The coefficients c_i carry weight, staleness, participation, clip and server learning rate; the
    staleness factors are not renormalised, so an all-stale buffer takes a smaller step. Deltas are
    consumed one at a time: memory holds one update, however large the buffer.

    Source: FedIT (Zhang et al., "Towards Building the Federated GPT", 2023) averages the factors;
    FedBuff (Nguyen et al., 2022) adds discounted deltas. The mean of B_i A_i differs from the
    product of the means in second order of the local drift.

    Args:
        current: θ_t, float32 tensors by name.
        deltas: (c_i, Δ_i) with Δ_i shaped like `current`.
    """
    result = {name: tensor.copy() for name, tensor in current.items()}
    for coefficient, delta in deltas:
        for name in result:
            result[name] += np.float32(coefficient) * delta[name]
    return result

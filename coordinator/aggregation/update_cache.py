"""Cache of last updates: clients that answer seldom keep their voice in every version.

    v = mean(h) + (1/n) Σᵢ (Δᵢ − hᵢ)   over the n updates of the buffer; afterwards hᵢ ← Δᵢ

hᵢ is the update of client i that was applied last, and mean(h) that of all clients that have one.
The step is an estimate of the mean over all clients, whoever happens to be in the buffer. A client
without hᵢ counts as the mean: the paper's 0 would make the steps of the first sweep up to twice as
long, because a schedule that takes clients in turn has no client twice in it.

Every update counts the same. The state is the sum of the h, so that a version reads the updates
that change, not those of all clients.

Source: Wang et al., "Tackling the Data Heterogeneity in Asynchronous Federated Learning with Cached
Update Calibration" (CA2FL, ICLR 2024), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.protocol.tensors import Tensors
from coordinator.aggregation.robust.similarity import TensorReader


def calibrated_mean(
    total: Tensors, clients: int, updates: Sequence[TensorReader], cached: Sequence[TensorReader]
) -> Tensors:
    """Return v.

    Args:
        total: Sum of the h, by name of the tensor; zeros if there is none.
        clients: Number of h in the sum.
        updates: Δᵢ, at least one.
        cached: hᵢ of each update whose client has one.
    """
    n = len(updates)
    share = np.float32((1 - (n - len(cached)) / n) / clients if clients else 0.0)
    result = {name: share * tensor for name, tensor in total.items()}
    part = np.float32(1 / n)
    for reader in updates:
        for name, tensor in reader():
            result[name] = result[name] + part * tensor
    for reader in cached:
        for name, tensor in reader():
            result[name] = result[name] - part * tensor
    return result


def updated_total(
    total: Tensors, entering: Sequence[TensorReader], leaving: Sequence[TensorReader]
) -> Tensors:
    """Return the sum of the h after some have come and others have gone."""
    result = dict(total)
    for reader in entering:
        for name, tensor in reader():
            result[name] = result[name] + tensor
    for reader in leaving:
        for name, tensor in reader():
            result[name] = result[name] - tensor
    return result

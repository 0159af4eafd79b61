"""Cosine of each update with the sum of the other clients' updates: contribution source `cosine`.

    cosᵢ = ⟨Δᵢ, Sᵢ⟩ / (‖Δᵢ‖ ‖Sᵢ‖),   Sᵢ = Σⱼ Δⱼ over the updates j of other clients

It is free of data and rewards agreement: an update that opposes all others is below 0.
`coordinator/cosine_scores.py` reads the deltas from the spool.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from common.protocol.tensors import Array

TensorReader = Callable[[], Iterator[Array]]
"""Begins to read the tensors of an update, one after another in the order of the layout."""

_Wide = NDArray[np.float64]


def cosines_with_others(clients: Sequence[str], readers: Sequence[TensorReader]) -> list[float]:
    """Return the cosine of each update with the sum of the other clients' updates.

    It is NaN where one of the two is zero, as where there is no other client. Each update is read
    twice, so that memory holds no more than the sum, and one client's updates, of one tensor.

    Args:
        clients: Client of each update.
        readers: The tensors of each update, all with the same layout.
    """
    owned: dict[str, list[int]] = defaultdict(list)
    for index, client in enumerate(clients):
        owned[client].append(index)
    dots, squares, others = (np.zeros(len(clients)) for _ in range(3))
    first, second = ([reader() for reader in readers] for _ in range(2))
    while (total := _sum_of_next(first)) is not None:
        for indexes in owned.values():
            own = [next(second[i]).astype(np.float64).ravel() for i in indexes]
            rest = total - sum(own)
            for i, delta in zip(indexes, own, strict=True):
                dots[i] += delta @ rest
                squares[i] += delta @ delta
                others[i] += rest @ rest
    return [_cosine(*values) for values in zip(dots, squares, others, strict=True)]


def _sum_of_next(deltas: Sequence[Iterator[Array]]) -> _Wide | None:
    """Return the sum of the next tensor of all updates; None after the last one."""
    total: _Wide | None = None
    for each in deltas:
        tensor = next(each, None)
        if tensor is not None:
            wide = tensor.astype(np.float64).ravel()
            total = wide if total is None else total + wide
    return total


def _cosine(dot: float, square: float, other: float) -> float:
    norm = math.sqrt(square) * math.sqrt(other)
    return max(-1.0, min(1.0, float(dot) / norm)) if norm else math.nan

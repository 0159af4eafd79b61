"""Cosine filter: leave out updates that point away from those of the other clients.

    cosᵢ = ⟨uᵢ, Sᵢ⟩ / ‖Sᵢ‖,   uᵢ = Δᵢ / ‖Δᵢ‖,   Sᵢ = Σ over other clients of the mean of their u

Directions are compared, so that an update does not count more by being longer, nor a client by
having several updates. An update is kept if cosᵢ is at least the threshold.

Source: ours; contribution source `cosine` weighs by a similar measure.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from coordinator.aggregation.robust.similarity import Matrix


def cosines_with_other_directions(products: Matrix, clients: Sequence[str]) -> list[float]:
    """Return cosᵢ of each update; NaN for a zero update and where there is no other direction.

    Args:
        products: Inner products of the updates.
        clients: The client of each.
    """
    norms = np.sqrt(np.diag(products))
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    cosines = products * inverse[:, None] * inverse[None, :]
    counts, found = Counter(clients), []
    for i, client in enumerate(clients):
        share = np.array([0.0 if each == client else 1 / counts[each] for each in clients])
        square = float(np.add.reduce(cosines * share[:, None] * share[None, :], axis=None))
        dot = float(np.add.reduce(cosines[i] * share))
        found.append(dot / math.sqrt(square) if norms[i] and square > 0 else math.nan)
    return found


def agreeing_updates(products: Matrix, clients: Sequence[str], threshold: float) -> list[int]:
    """Return the updates whose cosine is at least the threshold.

    All are returned if they are of one client, because there is nothing to compare them with.
    """
    if len(set(clients)) == 1:
        return list(range(len(clients)))
    cosines = cosines_with_other_directions(products, clients)
    return [i for i, cosine in enumerate(cosines) if cosine >= threshold]

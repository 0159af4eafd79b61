"""Krum and multi-Krum: choose the updates that have close neighbours.

    score(i) = Σ ‖Δᵢ − Δⱼ‖² over the n − f − 2 updates j that are closest to i

Krum applies the update with the lowest score, multi-Krum the mean of the n − f lowest. With n below
2f + 3 the f hostile updates can be each other's neighbours.

Source: Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine Learning with Adversaries: Byzantine
Tolerant Gradient Descent" (2017), sections 4 and 7.
"""

from __future__ import annotations

import numpy as np

from coordinator.aggregation.robust.similarity import Matrix


def hostile_count(share: float, updates: int) -> int:
    """Return f, the number of hostile updates to expect: ⌊share · n⌋."""
    return int(share * updates + 1e-9)  # 0.3 · 10 is below 3 in binary


def krum_scores(distances: Matrix, hostile: int) -> list[float]:
    """Return the score of each of n updates.

    A flush may have fewer than f + 3 of them: then one neighbour counts.

    Args:
        distances: Squared distances, n × n.
        hostile: f.
    """
    n = len(distances)
    neighbours = max(1, n - hostile - 2)
    others = (np.delete(row, i) for i, row in enumerate(distances))
    return [float(np.add.reduce(np.sort(row)[:neighbours])) for row in others]


def krum_choice(distances: Matrix, hostile: int, *, several: bool) -> list[int]:
    """Return the chosen updates in the order of the buffer; of equal ones, the earlier.

    `several` chooses n − f of them, as multi-Krum does, instead of one.
    """
    scores = krum_scores(distances, hostile)
    count = max(1, len(scores) - hostile) if several else 1
    return sorted(sorted(range(len(scores)), key=scores.__getitem__)[:count])

"""Centred clipping: every update moves the aggregate by at most a radius.

    v ← v + Σ wᵢ min(1, ρ / ‖Δᵢ − v‖) (Δᵢ − v),   Σ wᵢ = 1,   1 to 3 times

v begins with the aggregate of the version before, or 0. Without a radius ρ is the median distance
‖Δᵢ − v‖, which needs no unit, and which a minority cannot move far. The paper has equal weights.

Source: Karimireddy, He, Jaggi, "Learning from History for Byzantine Robust Optimization" (2021),
algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import numpy as np

from common.protocol.tensors import Array, Tensors
from coordinator.aggregation.robust.similarity import TensorReader


def centered_clip(
    center: Tensors,
    readers: Sequence[TensorReader],
    weights: Sequence[float],
    radius: float | None,
    iterations: int,
) -> Tensors:
    """Return the aggregate of the updates; memory does not depend on their number.

    Every iteration reads each update twice: to measure its distance, and to add it.

    Args:
        center: First v, by name of the tensor.
        weights: wᵢ; they are divided by their sum.
        radius: ρ, as an L2 norm; None is the median distance.
    """
    total = sum(weights)
    for _ in range(iterations):
        distances = [_distance(reader, center) for reader in readers]
        limit = median(distances) if radius is None else radius
        moved = dict(center)
        for reader, weight, distance in zip(readers, weights, distances, strict=True):
            share = np.float32(weight / total * (1.0 if distance <= limit else limit / distance))
            for name, tensor in reader():
                moved[name] = moved[name] + share * (tensor - center[name])
        center = moved
    return center


def _distance(reader: TensorReader, center: Tensors) -> float:
    return math.sqrt(sum(_square(tensor - center[name]) for name, tensor in reader()))


def _square(difference: Array) -> float:
    wide = difference.astype(np.float64).ravel()
    return float(np.add.reduce(wide * wide))

"""Aggregate of a buffer by the robust rule that the configuration names.

Rules work on yᵢ = s(τᵢ) rᵢ cᵢ Δᵢ. How the contribution weights wᵢ enter:

    cosine-filter, multi-krum    Σ wᵢ yᵢ / Σ wᵢ over the updates that the rule has chosen
    centered-clip                wᵢ is the weight of a clipped difference
    trimmed-mean, median, krum   not at all: every update counts the same

`coordinator/aggregation/rules/pseudo_gradient.py` makes the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from common.config.config import RobustConfig
from common.protocol.tensors import Array, Tensors
from coordinator.aggregation.robust.centered_clip import centered_clip
from coordinator.aggregation.robust.coordinates import coordinate_median, trimmed_mean
from coordinator.aggregation.robust.cosine_filter import agreeing_updates
from coordinator.aggregation.robust.krum import hostile_count, krum_choice
from coordinator.aggregation.robust.similarity import (
    Matrix,
    TensorReader,
    inner_products,
    squared_distances,
)
from coordinator.aggregation.rules.factor import add_delta
from coordinator.aggregation.rules.rule import WeightedUpdate


def robust_aggregate(
    config: RobustConfig, updates: Sequence[WeightedUpdate], center: Tensors
) -> tuple[Tensors, frozenset[str]]:
    """Return the aggregate, and the ids of the tasks whose updates were left out.

    Args:
        config: The rule, not `none`.
        updates: At least one.
        center: Aggregate of the step before, zeros if there is none; for `centered-clip`.
    """
    readers = [partial(_scaled, update) for update in updates]
    match config.rule:
        case "trimmed-mean":
            return _combine(readers, partial(trimmed_mean, share=config.share)), frozenset()
        case "median":
            return _combine(readers, coordinate_median), frozenset()
        case "centered-clip":
            weights = [update.weight for update in updates]
            found = centered_clip(center, readers, weights, config.radius, config.iterations)
            return found, frozenset()
    chosen = _choose(config, inner_products(readers), updates)
    left_out = frozenset(u.task_id for i, u in enumerate(updates) if i not in chosen)
    total = sum(updates[i].weight for i in chosen)
    result = {name: np.zeros_like(tensor) for name, tensor in updates[0].tensors()}
    for i in chosen if total else ():
        add_delta(result, updates[i].weight / total, readers[i]())
    return result, left_out


def _choose(config: RobustConfig, products: Matrix, updates: Sequence[WeightedUpdate]) -> list[int]:
    if config.rule == "cosine-filter":
        return agreeing_updates(products, [u.client_id for u in updates], config.threshold)
    hostile = hostile_count(config.share, len(updates))
    distances = squared_distances(products)
    return krum_choice(distances, hostile, several=config.rule == "multi-krum")


def _scaled(update: WeightedUpdate) -> Iterator[tuple[str, Array]]:
    scale = np.float32(update.scale)
    for name, tensor in update.tensors():
        yield name, scale * tensor


def _combine(
    readers: Sequence[TensorReader], combine: Callable[[Sequence[Array]], Array]
) -> Tensors:
    """Return each tensor as a function of that tensor of all updates, which it reads in step."""
    result = Tensors()
    for tensors in zip(*(reader() for reader in readers), strict=True):
        result[tensors[0][0]] = combine([tensor for _, tensor in tensors])
    return result

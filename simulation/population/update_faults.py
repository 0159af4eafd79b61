"""Faulty and hostile clients that send wrong updates or claims; [simulation] `faults` names them.

    lie-loss        Claims a training loss and a loss after training of almost nothing.
    lie-size        Claims a thousand times the rows that it has.
    sign-flip       Sends −s · Δ, where s is `simulation.fault_scale`.
    scale           Sends s · Δ.
    noise           Sends Gaussian noise with s times the norm of Δ instead of Δ.
    collude         Sends one direction, the same for all such clients and in every task, with
                    s times the norm of Δ.

`simulation/population/row_faults.py` has the faults of rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from common.config.simulation import FaultKind, SimulationConfig
from common.protocol.tensors import Tensors
from common.protocol.updates import ContributionStats
from simulation.population.streams import Streams
from simulation.work.work import Trained

CLAIMED_LOSS = 1e-4  # nats
CLAIMED_SIZE = 1000


def corrupt(
    trained: Trained, config: SimulationConfig, streams: Streams, client: int, number: int
) -> Trained:
    """Return what a faulty client sends after its `number`-th task."""
    delta, norm = trained.delta, l2_norm(trained.delta)
    scale = config.fault_scale
    for fault in config.faults:
        match fault:
            case "sign-flip":
                delta = {name: np.float32(-scale) * tensor for name, tensor in delta.items()}
            case "scale":
                delta = {name: np.float32(scale) * tensor for name, tensor in delta.items()}
            case "noise":
                delta = _direction(delta, scale * norm, streams.of("noise", client, number))
            case "collude":
                delta = _direction(delta, scale * norm, streams.of("collude"))
    stats = trained.stats.model_copy(update={"delta_norm": l2_norm(delta)})
    return Trained(delta, _claimed(stats, config.faults))


def _direction(like: Tensors, norm: float, rng: np.random.Generator) -> Tensors:
    """Return random tensors of the same shapes with a norm over all of them."""
    drawn = {name: rng.standard_normal(t.shape, dtype=np.float32) for name, t in like.items()}
    factor = np.float32(norm / (l2_norm(drawn) or 1.0))
    return {name: factor * tensor for name, tensor in drawn.items()}


def _claimed(stats: ContributionStats, faults: Sequence[FaultKind]) -> ContributionStats:
    changes: dict[str, object] = {}
    if "lie-loss" in faults:
        changes["avg_loss"] = CLAIMED_LOSS
        if stats.loss_after is not None:
            changes["loss_after"] = CLAIMED_LOSS
    if "lie-size" in faults:
        changes["num_samples"] = CLAIMED_SIZE * stats.num_samples
    return stats.model_copy(update=changes)


def l2_norm(tensors: Tensors) -> float:
    """Return the L2 norm over all tensors."""
    return math.sqrt(sum(float(np.square(t, dtype=np.float64).sum()) for t in tensors.values()))

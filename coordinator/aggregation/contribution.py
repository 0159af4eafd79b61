"""FCCL, Federated Cognitive Contribution Learning: how much each client's update counts.

A softmax over contribution scores built from loss and sample count. After `admission`, before
`aggregation` on an update's way. docs/algorithms.md carries a worked example of every function.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from common.config.config import AggregationConfig
from common.protocol.updates import ContributionStats

LOSS_RANGE = (0.5, 2.0)  # times the buffer's median loss; a reported loss → 0 must not win a round
LEAST_LOSS = 1e-6  # nats per token; 1/l of a claim near 0 would overflow
STEP_RANGE = (0.5, 2.0)  # for a buffer of one client


def contribution_loss(stats: ContributionStats, source: str) -> float:
    """ℓ: the mean training loss (`train`), or the loss after training on the client's holdout."""
    return stats.avg_loss if source == "train" else stats.loss_after


def clamp_losses(losses: Sequence[float]) -> list[float]:
    """Losses within [0.5, 2] × their median."""
    middle = median(losses)
    low, high = LOSS_RANGE[0] * middle, LOSS_RANGE[1] * middle
    return [min(high, max(low, loss)) for loss in losses]


def contribution_score(loss: float, samples: int, mode: str) -> float:
    """1/ℓ (`loss`), n (`size`) or n/ℓ (`combined`). The sample count enters once."""
    loss = max(loss, LEAST_LOSS)
    return {"loss": 1 / loss, "size": float(samples), "combined": samples / loss}[mode]


def softmax(values: Sequence[float]) -> list[float]:
    """exp(v_i) / Σ exp(v_j), shifted by the maximum."""
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    total = sum(powers)
    return [power / total for power in powers]


def scaled_softmax(scores: Sequence[float], scale: str, temperature: float) -> list[float]:
    """softmax(s/T) (`raw`, the original formula to the letter) or softmax(log(s)/T) (`log`).

    `log` is scale-free, s^(1/T)/Σ: T = 1 is proportional, T → ∞ uniform, T → 0 winner takes all.
    """
    values = scores if scale == "raw" else [math.log(s) for s in scores]
    return softmax([value / temperature for value in values])


def apply_floor(weights: Sequence[float], floor: float) -> list[float]:
    """(1 − ε) w + ε/K: nobody's data is without a voice."""
    return [(1 - floor) * weight + floor / len(weights) for weight in weights]


def apply_cap(weights: Sequence[float], cap: float) -> list[float]:
    """No weight over cap/K; the excess goes to the others in proportion to their weights.

    A cap at or under 1/K means equal weights.
    """
    limit = cap / len(weights)
    if cap <= 1:
        return [1 / len(weights)] * len(weights)
    result, fixed = list(weights), set[int]()
    # Handing out the excess can lift another weight over the limit; each turn fixes one or more.
    while over := {i for i, w in enumerate(result) if i not in fixed and w > limit + 1e-12}:
        fixed |= over
        free = [i for i in range(len(result)) if i not in fixed]
        left = 1 - limit * len(fixed)
        total = sum(weights[i] for i in free)
        # A sharp softmax can leave the others exactly nothing: then they share equally.
        shares = [weights[i] / total if total else 1 / len(free) for i in range(len(result))]
        result = [limit if i in fixed else share * left for i, share in enumerate(shares)]
    return result


def contribution_weights(
    stats: Mapping[str, ContributionStats], config: AggregationConfig
) -> dict[str, tuple[float, float]]:
    """Score and weight of every client; the weights sum to 1.

    Args:
        stats: The statistics of each client, one entry a client.
        config: Mode, source, scale, temperature, floor and cap. `raw` adds nothing to the softmax:
            no clamp, floor or cap.

    Returns:
        (score, weight) by client id.
    """
    losses = [contribution_loss(s, config.contribution_source) for s in stats.values()]
    raw = config.score_scale == "raw"
    if not raw:
        losses = clamp_losses(losses)
    pairs = zip(losses, stats.values(), strict=True)
    scores = [
        contribution_score(loss, max(1, s.num_samples), config.contribution_mode)
        for loss, s in pairs
    ]
    result = scaled_softmax(scores, config.score_scale, config.temperature)
    if not raw:
        result = apply_cap(apply_floor(result, config.floor), config.cap)
    return {client: (s, w) for client, s, w in zip(stats, scores, result, strict=True)}


def single_client_step(
    client: str, last: Mapping[str, ContributionStats], config: AggregationConfig
) -> tuple[float, float]:
    """Score and step size of a buffer that holds one client: clip(N · w, 0.5, 2).

    A softmax over one score is always 1, so w is taken over the last statistics of the N active
    clients (which include this one).
    """
    value, weight = contribution_weights(last, config)[client]
    return value, min(STEP_RANGE[1], max(STEP_RANGE[0], len(last) * weight))

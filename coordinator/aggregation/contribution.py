"""Contribution weight w of FCCL, Federated Cognitive Contribution Learning.

The weight of a client is a softmax over contribution scores, which are built from sample count and
either a loss that the client claims, or a measure of its update that it cannot inflate. A factor of
`coordinator/aggregation/coefficients.py`; docs/algorithms.md has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from common.config.config import AggregationConfig
from common.protocol.updates import ContributionStats

LOSS_RANGE = (0.5, 2.0)  # × the buffer's median; a claimed loss near 0 must not take all weight
MIN_LOSS = 1e-6  # nats per token; the inverse of a claim near 0 would overflow
SINGLE_CLIENT_RANGE = (0.5, 2.0)  # weight of the only client in a buffer


MAX_MEASURE = 1e6  # nats; a drop in loss is bounded by the largest loss, and sums must not overflow
MIN_MEASURE = 1e-12  # a smaller drop in loss is none, and a share of it must not become 0
MEASURE_RANGE = (0.05, 2.0)  # × the median of the positive ones; a useless update counts a little


def contribution_loss(stats: ContributionStats, source: str) -> float:
    """Return ℓ: the mean training loss (`train`) or the loss on the holdout after training."""
    if source == "train" or stats.loss_after is None:  # `admission` rejects it where it is needed
        return stats.avg_loss
    return stats.loss_after


def clamp_losses(losses: Sequence[float]) -> list[float]:
    """Limit the losses to [0.5, 2] × their median."""
    middle = median(losses)
    low, high = LOSS_RANGE[0] * middle, LOSS_RANGE[1] * middle
    return [min(high, max(low, loss)) for loss in losses]


def contribution_score(loss: float, samples: int, mode: str) -> float:
    """Return 1/ℓ (mode `loss`), n (`size`), n/ℓ (`combined`) or 1 (`uniform`)."""
    loss = max(loss, MIN_LOSS)
    scores = {"loss": 1 / loss, "size": float(samples), "combined": samples / loss}
    return scores.get(mode, 1.0)


def measured_values(values: Sequence[float | None]) -> list[float]:
    """Return the factor of each client's score that follows from drops in loss, or cosines.

    A missing value is the median of the others; all are 1 if none is known. Values are limited to
    `MEASURE_RANGE` of the median of the positive ones: only their ratios matter, since the deltas
    of LoRA factors are nearly orthogonal, and even helpful ones have small cosines. If none is
    positive, the updates do not differ in anything that could be measured, and all values are 1.
    """
    filled = _fill_missing(values)
    positive = [value for value in filled or () if value > MIN_MEASURE]
    if filled is None or not positive:
        return [1.0] * len(values)
    middle = median(positive)
    low, high = MEASURE_RANGE[0] * middle, MEASURE_RANGE[1] * middle
    return [min(high, max(low, value)) for value in filled]


def _fill_missing(values: Sequence[float | None]) -> list[float] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    middle = median(known)
    filled = [middle if value is None else value for value in values]
    return [min(MAX_MEASURE, max(-MAX_MEASURE, value)) for value in filled]


def measured_score(value: float, samples: int, mode: str) -> float:
    """Return the value (mode `loss`), n (`size`), n · value (`combined`) or 1 (`uniform`)."""
    scores = {"loss": value, "size": float(samples), "combined": samples * value}
    return scores.get(mode, 1.0)


def softmax(values: Sequence[float]) -> list[float]:
    """Return exp(vᵢ) / Σ exp(vⱼ), computed with the maximum subtracted to avoid overflow."""
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    total = sum(powers)
    return [power / total for power in powers]


def scaled_softmax(scores: Sequence[float], scale: str, temperature: float) -> list[float]:
    """Return softmax(s/T) (scale `raw`, the original formula) or softmax(log(s)/T) (`log`).

    `log` does not depend on units and equals s^(1/T)/Σ: T = 1 is proportional to the scores, T → ∞
    is uniform, and T → 0 gives everything to the highest score.
    """
    values = scores if scale == "raw" else [math.log(s) for s in scores]
    return softmax([value / temperature for value in values])


def apply_floor(weights: Sequence[float], floor: float) -> list[float]:
    """Return (1 − ε) w + ε/K for each weight, so that every client's data count a little."""
    return [(1 - floor) * weight + floor / len(weights) for weight in weights]


def apply_cap(weights: Sequence[float], cap: float) -> list[float]:
    """Limit weights to cap/K; the excess goes to the others in proportion to their weights.

    A cap of 1 or less makes all weights equal.
    """
    limit = cap / len(weights)
    if cap <= 1:
        return [1 / len(weights)] * len(weights)
    result, fixed = list(weights), set[int]()
    # The excess can lift another weight over the limit. Each pass fixes at least one more.
    while over := {i for i, w in enumerate(result) if i not in fixed and w > limit + 1e-12}:
        fixed |= over
        free = [i for i in range(len(result)) if i not in fixed]
        left = 1 - limit * len(fixed)
        total = sum(weights[i] for i in free)
        # A sharp softmax can leave the others exactly zero: then they share equally.
        shares = [weights[i] / total if total else 1 / len(free) for i in range(len(result))]
        result = [limit if i in fixed else share * left for i, share in enumerate(shares)]
    return result


def contribution_weights(
    stats: Mapping[str, ContributionStats],
    config: AggregationConfig,
    measured: Mapping[str, float] | None = None,
) -> dict[str, tuple[float, float]]:
    """Return score and weight of every client; the weights sum to 1.

    Scale `raw` is the softmax alone, without clamp, floor and cap.

    Args:
        stats: What each client claims about its newest update.
        config: The settings.
        measured: Drop in loss, or cosine, of these updates as far as it is known, for the sources
            that clients cannot inflate.
    """
    raw = config.score_scale == "raw"
    scores = _scores(stats, config, measured or {})
    result = scaled_softmax(scores, config.score_scale, config.temperature)
    if not raw:
        result = apply_cap(apply_floor(result, config.floor), config.cap)
    return {client: (s, w) for client, s, w in zip(stats, scores, result, strict=True)}


def _scores(
    stats: Mapping[str, ContributionStats],
    config: AggregationConfig,
    measured: Mapping[str, float],
) -> list[float]:
    source, mode, raw = (
        config.contribution_source,
        "uniform" if config.weighs_equally else config.contribution_mode,
        config.score_scale == "raw",
    )
    counts = [max(1, s.num_samples) for s in stats.values()]
    if source in ("train", "holdout"):
        losses = [contribution_loss(s, source) for s in stats.values()]
        if not raw:
            losses = clamp_losses(losses)
        return [contribution_score(x, n, mode) for x, n in zip(losses, counts, strict=True)]
    known = [measured.get(client) for client in stats]
    values = (_fill_missing(known) or [1.0] * len(known)) if raw else measured_values(known)
    return [measured_score(x, n, mode) for x, n in zip(values, counts, strict=True)]


def single_client_weight(
    client: str,
    latest: Mapping[str, ContributionStats],
    config: AggregationConfig,
    measured: Mapping[str, float] | None = None,
) -> tuple[float, float]:
    """Return score and weight of the only client in a buffer: clip(N · w, 0.5, 2).

    A softmax over one score is always 1. Therefore w is taken over the last statistics and measured
    values of the N active clients, which include this one.
    """
    value, weight = contribution_weights(latest, config, measured)[client]
    return value, min(SINGLE_CLIENT_RANGE[1], max(SINGLE_CLIENT_RANGE[0], len(latest) * weight))

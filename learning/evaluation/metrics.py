"""Metrics of an evaluation, computed from a model's scores of each row, without model or files.

The scores of one pass over many rows serve every set that the rows belong to: the held-out set,
each client, all clients together.

Data path: `learning.evaluation.row_scores` → here → `evaluation.assessment`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev

from common.evaluation.metric_info import MetricInfo

Z = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True)
class EvalMetrics:
    """Metrics of one model on one set of rows; an empty set has no values."""

    rows: int  # number of rows behind each value
    # By key of the metric; also `tokens` and `bytes` of responses.
    # Rewards of good answers are missing where none is good, and so on.
    values: Mapping[str, float] = field(default_factory=dict)
    confusion: tuple[tuple[int, ...], ...] = ()  # rows by true class, then by predicted class

    def interval(self, metric: MetricInfo) -> tuple[float, float] | None:
        """Return the 95 % interval of a share; None for other metrics, or without rows."""
        if not metric.share or not self.rows:
            return None
        return wilson(self.values[metric.key], self.rows)


def wilson(share: float, rows: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a share of independent rows (Wilson 1927).

    Unlike share ± z·√(p(1−p)/n) it stays within [0, 1] and does not collapse at a share of 0 or 1.
    """
    middle = (share + Z**2 / (2 * rows)) / (1 + Z**2 / rows)
    half = Z / (1 + Z**2 / rows) * math.sqrt(share * (1 - share) / rows + Z**2 / (4 * rows**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def text_metrics(nats: Sequence[float], tokens: Sequence[int], sizes: Sequence[int]) -> EvalMetrics:
    """Return perplexity and related metrics over response tokens, end of sequence included.

    Args:
        nats: −log p of each row's response.
        tokens: Response tokens of each row.
        sizes: UTF-8 bytes of each row's response.
    """
    if not nats:
        return EvalMetrics(0)
    mean = sum(nats) / sum(tokens)
    values = {
        "nats_per_token": mean,
        "perplexity": math.exp(mean) if mean < 700 else math.inf,
        "bits_per_byte": sum(nats) / math.log(2) / max(1, sum(sizes)),
        "tokens": sum(tokens),
        "bytes": sum(sizes),
    }
    return EvalMetrics(len(nats), values)


PairValues = Sequence[tuple[float, float]]
"""A number for the chosen and one for the rejected answer of each pair."""


def preference_metrics(
    policy: PairValues, reference: PairValues, lengths: PairValues, beta: float
) -> EvalMetrics:
    """Return how often the chosen answer is the likelier one, by itself and against the reference.

    A reward is β·(log π − log π_ref), as in DPO (Rafailov et al. 2023, section 4); the margin is
    the mean of chosen minus rejected. A tie counts half: a model that is its own reference is right
    as often as a coin.

    Args:
        policy: log π, summed over response tokens, in nats.
        reference: log π_ref.
        lengths: Response tokens.
        beta: β of the phase.
    """
    if not policy:
        return EvalMetrics(0)
    per_token = [
        (chosen / n, rejected / m)
        for (chosen, rejected), (n, m) in zip(policy, lengths, strict=True)
    ]
    rewards = [
        (beta * (chosen - known), beta * (rejected - other))
        for (chosen, rejected), (known, other) in zip(policy, reference, strict=True)
    ]
    values = {
        "accuracy": _share_likelier(policy),
        "accuracy_per_token": _share_likelier(per_token),
        "reward_accuracy": _share_likelier(rewards),
        "reward_margin": fmean(chosen - rejected for chosen, rejected in rewards),
    }
    return EvalMetrics(len(policy), values)


def rating_metrics(rewards: Sequence[float], good: Sequence[bool], loss: float) -> EvalMetrics:
    """Return how often a reward has the sign of its rating, and how far rewards are apart.

    The margin is the mean reward of good minus that of bad answers. A reward of 0 counts half.

    Args:
        rewards: β·(log π − log π_ref) of each answer, as in KTO (`learning.objectives.kto`).
        good: Whether each answer is rated good.
        loss: Mean loss of all, which is not used for an empty set.
    """
    if not rewards:
        return EvalMetrics(0)
    rated = list(zip(rewards, good, strict=True))
    signs = [(reward, 0.0) if liked else (0.0, reward) for reward, liked in rated]
    sides = {
        "reward_good": [reward for reward, liked in rated if liked],
        "reward_bad": [reward for reward, liked in rated if not liked],
    }
    values = {"reward_accuracy": _share_likelier(signs), "loss": loss}
    values |= {key: fmean(side) for key, side in sides.items() if side}
    if all(sides.values()):
        values["reward_margin"] = values["reward_good"] - values["reward_bad"]
    return EvalMetrics(len(rewards), values)


def class_metrics(
    nats: Sequence[float], predicted: Sequence[int], true: Sequence[int], count: int
) -> EvalMetrics:
    """Return loss, accuracy, macro-F1 and the confusion matrix from −log p of the true classes."""
    if not nats:
        return EvalMetrics(0)
    # Reports of runs without rows need no torch.
    from learning.objectives.classification import Predictions  # noqa: PLC0415

    predictions = Predictions(fmean(nats), tuple(predicted), tuple(true))
    confusion = [[0] * count for _ in range(count)]
    for guess, right in zip(predicted, true, strict=True):
        confusion[right][guess] += 1
    values = {
        "loss": predictions.loss,
        "accuracy": predictions.accuracy,
        "macro_f1": predictions.macro_f1,
    }
    return EvalMetrics(len(nats), values, tuple(map(tuple, confusion)))


@dataclass(frozen=True)
class ClientSpread:
    """Spread of a metric over the clients that have rows."""

    clients: int  # number of clients that have rows
    worst: str  # client id; the first by name, of equal ones
    worst_value: float
    range: float  # greatest minus smallest value
    deviation: float  # standard deviation, each client counting the same


def client_spread(metric: MetricInfo, metrics: Mapping[str, EvalMetrics]) -> ClientSpread | None:
    """Return the spread of a metric over clients; None if none of them has rows."""
    values = {
        name: one.values[metric.key] for name, one in metrics.items() if metric.key in one.values
    }
    if not values:
        return None
    pick = min if metric.higher else max
    worst = pick(sorted(values), key=values.__getitem__)
    return ClientSpread(
        len(values),
        worst,
        values[worst],
        max(values.values()) - min(values.values()),
        pstdev(values.values()),
    )


def _share_likelier(pairs: PairValues) -> float:
    return fmean(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs)

"""Metrics of small sets of rows, from the scores of each row."""

from __future__ import annotations

from collections.abc import Sequence

from learning.evaluation.metrics import EvalMetrics, make_metrics
from learning.evaluation.row_sums import (
    PairValues,
    class_sums,
    preference_sums,
    text_sums,
)


def text_metrics(nats: Sequence[float], tokens: Sequence[int], sizes: Sequence[int]) -> EvalMetrics:
    return make_metrics("sft", text_sums(nats, tokens, sizes))


def preference_metrics(
    policy: PairValues, reference: PairValues, lengths: PairValues, beta: float
) -> EvalMetrics:
    """Return the metrics of pairs whose losses are 0."""
    rewards = [
        (beta * (a - c), beta * (b - d)) for (a, b), (c, d) in zip(policy, reference, strict=True)
    ]
    return make_metrics("va", preference_sums(policy, rewards, lengths, [0.0] * len(policy)))


def class_metrics(
    nats: Sequence[float], predicted: Sequence[int], true: Sequence[int], count: int
) -> EvalMetrics:
    return make_metrics("cls", class_sums(nats, predicted, true, count))

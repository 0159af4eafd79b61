"""Sums over the scores of rows, which pool exactly: what a site sends, and metrics follow from.

A loss that is not a finite number raises `ModelError`: such a model has diverged.

Data path: `learning.evaluation.row_scores` → here → `common.evaluation.sums.metric_values`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import fsum, nan
from typing import Any

from pydantic import ValidationError

from common.errors import ModelError
from common.evaluation.sums import EvaluationSums

PairValues = Sequence[tuple[float, float]]
"""A number for the chosen and one for the rejected answer of each pair."""


def text_sums(nats: Sequence[float], tokens: Sequence[int], sizes: Sequence[int]) -> EvaluationSums:
    """Return the sums of texts.

    Args:
        nats: −log p of each row's response.
        tokens: Response tokens of each row, end of sequence included.
        sizes: UTF-8 bytes of each row's response.
    """
    return _make(rows=len(nats), loss=_loss(nats), tokens=sum(tokens), bytes=sum(sizes))


def preference_sums(
    policy: PairValues, rewards: PairValues, lengths: PairValues, losses: Sequence[float]
) -> EvaluationSums:
    """Return how often the chosen answer is the likelier one, by itself and against the reference.

    A reward is β·(log π − log π_ref), as in DPO (Rafailov et al. 2023, section 4); the margin is
    chosen minus rejected. A tie counts half: a model that is its own reference is right as often as
    a coin.

    Args:
        policy: log π, summed over response tokens, in nats.
        rewards: Of both answers.
        lengths: Response tokens.
        losses: Loss of each pair.
    """
    per_token = [
        (chosen / n, rejected / m)
        for (chosen, rejected), (n, m) in zip(policy, lengths, strict=True)
    ]
    return _make(
        rows=len(policy),
        loss=_loss(losses),
        likelier=_count_greater(policy),
        likelier_per_token=_count_greater(per_token),
        rewarded=_count_greater(rewards),
        margin=_total(chosen - rejected for chosen, rejected in rewards),
    )


def rating_sums(
    rewards: Sequence[float], good: Sequence[bool], losses: Sequence[float]
) -> EvaluationSums:
    """Return how often a reward has the sign of its rating, and the rewards of both sides.

    A reward of 0 counts half.

    Args:
        rewards: β·(log π − log π_ref) of each answer, as in KTO (`learning.objectives.kto`).
        good: Whether each answer is rated good.
        losses: Loss of each answer. It depends on z₀ of the set that was scored together: the
            pooled loss of several clients is the mean of their own, each with its own z₀.
    """
    rated = list(zip(rewards, good, strict=True))
    return _make(
        rows=len(rated),
        loss=_loss(losses),
        rewarded=_count_greater([(r, 0.0) if liked else (0.0, r) for r, liked in rated]),
        good=sum(good),
        reward_good=_total(reward for reward, liked in rated if liked),
        reward_bad=_total(reward for reward, liked in rated if not liked),
    )


def class_sums(
    nats: Sequence[float], predicted: Sequence[int], true: Sequence[int], classes: int
) -> EvaluationSums:
    """Return loss, correct texts and confusion matrix from −log p of the true classes."""
    confusion = [[0] * classes for _ in range(classes)] if true else []
    for guess, right in zip(predicted, true, strict=True):
        confusion[right][guess] += 1
    return _make(
        rows=len(nats),
        loss=_loss(nats),
        correct=sum(guess == right for guess, right in zip(predicted, true, strict=True)),
        confusion=tuple(map(tuple, confusion)),
    )


def _make(**sums: Any) -> EvaluationSums:
    """Return a record of sums; `ModelError` if one is not a finite number."""
    try:
        return EvaluationSums(**sums)
    except ValidationError:
        raise ModelError("the loss is not a finite number", "lower phase.lr") from None


def _loss(values: Sequence[float]) -> float:
    total = _total(values)
    return 0.0 if total < 0 else total  # −log p of a certain answer may be rounded below 0


def _total(values: Iterable[float]) -> float:
    try:
        return fsum(values)
    except (OverflowError, ValueError):  # ∞ − ∞
        return nan


def _count_greater(pairs: PairValues) -> float:
    return fsum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs)

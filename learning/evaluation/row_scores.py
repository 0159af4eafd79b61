"""Scorers of each kind of rows, as values made of functions.

A score is a model's result for one row; the metrics of any set of rows follow from the scores of
its rows. So a model reads a row once, however many sets the row belongs to.

Scores are computed in the precision of training unless float32 is asked for. A reward is a small
difference of large sums, of which bfloat16 changes the second digit, so that log-probabilities are
computed and added up in float32 from the logits on. `fccl evaluate --precise` also computes the
model in float32, for figures that do not depend on what `learning.training.device` found fast.

Data path: `learning.data.rows` → `encode` → `score` → `metrics` (`learning.evaluation.metrics`),
for `evaluation.assessment`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from common.protocol.fields import ROW_KINDS, RowKind
from common.protocol.tasks import DpoSettings, KtoSettings, PromptSpec
from learning.evaluation import inference, metrics
from learning.evaluation.metrics import EvalMetrics
from learning.objectives import dpo, kto, registry
from learning.objectives.classification import TokenisedText
from learning.objectives.dpo import TokenisedPair
from learning.objectives.kto import TokenisedRating
from learning.objectives.registry import Objective
from learning.objectives.tokens import TokenisedExample

Scores = Sequence[Any]
"""One entry for each example; only the functions of a kind know its type."""


@dataclass(frozen=True)
class RowScorer:
    """How to evaluate one kind of rows."""

    kind: RowKind
    objective: Objective  # its `encode` makes examples of the rows
    # (model, examples, autocast=…) → a score of each, in their order
    score: Callable[..., Scores]
    # (examples, scores, scores of the reference) → metrics of this set
    metrics: Callable[[Sequence[Any], Scores, Scores], EvalMetrics]


def make_scorer(
    kind: RowKind,
    settings: DpoSettings | KtoSettings | None,
    labels: Sequence[str],
    prompt: PromptSpec | None = None,
) -> RowScorer:
    """Return the scorer of a kind of rows.

    Args:
        settings: Settings of the phase that learns preferences or ratings; None takes the defaults.
        labels: Class names of `classification`.
        prompt: Prompt form of the other kinds; None is the Alpaca form.
    """
    name = next(name for name, own in ROW_KINDS.items() if own == kind)
    objective = registry.make_objective(name, settings, labels, prompt=prompt)
    match kind:
        case "sft":
            return RowScorer(kind, objective, _text_scores, _text_metrics)
        case "va":
            pairs = settings if isinstance(settings, DpoSettings) else DpoSettings()
            return RowScorer(kind, objective, _pair_scores, _PairMetrics(pairs))
        case "kto":
            ratings = settings if isinstance(settings, KtoSettings) else KtoSettings()
            return RowScorer(kind, objective, _rating_scores, _RatingMetrics(ratings))
        case "cls":
            return RowScorer(kind, objective, _class_scores, _ClassMetrics(len(labels)))


def _text_scores(
    model: torch.nn.Module, examples: Sequence[TokenisedExample], *, autocast: bool = False
) -> list[float]:
    return inference.row_nats(model, examples, autocast=autocast)


def _text_metrics(examples: Sequence[TokenisedExample], scores: Scores, _: Scores) -> EvalMetrics:
    return metrics.text_metrics(
        scores, [e.target_count for e in examples], [e.response_bytes for e in examples]
    )


def _pair_scores(
    model: torch.nn.Module, pairs: Sequence[TokenisedPair], *, autocast: bool = False
) -> list[tuple[float, float]]:
    return dpo.log_probabilities(model, pairs, autocast=autocast)


@dataclass(frozen=True)
class _PairMetrics:
    settings: DpoSettings

    def __call__(
        self, pairs: Sequence[TokenisedPair], scores: Scores, reference: Scores
    ) -> EvalMetrics:
        lengths = [(pair.chosen.target_count, pair.rejected.target_count) for pair in pairs]
        return metrics.preference_metrics(scores, reference, lengths, self.settings.beta)


def _rating_scores(
    model: torch.nn.Module, ratings: Sequence[TokenisedRating], *, autocast: bool = False
) -> list[tuple[float, float]]:
    return kto.log_probabilities(model, ratings, autocast=autocast)


@dataclass(frozen=True)
class _RatingMetrics:
    settings: KtoSettings

    def __call__(
        self, ratings: Sequence[TokenisedRating], scores: Scores, reference: Scores
    ) -> EvalMetrics:
        answers, mismatched = (
            [ours[i] - known[i] for ours, known in zip(scores, reference, strict=True)]
            for i in range(2)
        )
        good = [rating.good for rating in ratings]
        loss = kto.mean_loss(answers, mismatched, good, self.settings) if ratings else 0.0
        return metrics.rating_metrics([self.settings.beta * r for r in answers], good, loss)


def _class_scores(
    model: torch.nn.Module, texts: Sequence[TokenisedText], *, autocast: bool = False
) -> list[tuple[float, int]]:
    return inference.class_scores(model, texts, autocast=autocast)


@dataclass(frozen=True)
class _ClassMetrics:
    classes: int

    def __call__(self, texts: Sequence[TokenisedText], scores: Scores, _: Scores) -> EvalMetrics:
        return metrics.class_metrics(
            [nats for nats, _ in scores],
            [predicted for _, predicted in scores],
            [text.label for text in texts],
            self.classes,
        )

"""How rows of each kind are scored, as values made of functions chosen from a table.

A score is what one model says of one row; figures of any set of rows follow from the scores of its
rows. So a model sees a row once, however many sets it belongs to.

Scored in float32, whatever training computes in: a reward is a small difference of large sums,
which bfloat16 changes in its second digit, and figures must not depend on the machine's load when
`learning.training.device` tried out what is fast.

Data path: `learning.data.rows` → `encode` → `score` → `figures` (`learning.evaluation.metrics`), for
`evaluation.assessment`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from common.protocol.fields import ObjectiveName as Name
from common.protocol.fields import RowKind
from common.protocol.tasks import DpoSettings
from learning.evaluation import evaluate, metrics
from learning.evaluation.measurement import BATCH
from learning.evaluation.metrics import EvalMetrics
from learning.objectives import dpo, registry
from learning.objectives.classification import TokenisedText
from learning.objectives.dpo import TokenisedPair
from learning.objectives.registry import Objective
from learning.objectives.tokens import TokenisedExample

Scores = Sequence[Any]
"""One entry for each example; of a type that only the functions of its kind know."""


@dataclass(frozen=True)
class RowScorer:
    """How to evaluate one kind of rows.

    Attributes:
        kind: Of the rows.
        objective: Whose `encode` makes examples of them.
        score: (model, examples) → a score of each, in their order.
        metrics: (examples, scores, scores of the reference) → figures of this set.
    """

    kind: RowKind
    objective: Objective
    score: Callable[[torch.nn.Module, Sequence[Any]], Scores]
    metrics: Callable[[Sequence[Any], Scores, Scores], EvalMetrics]


def make_scorer(kind: RowKind, settings: DpoSettings | None, labels: Sequence[str]) -> RowScorer:
    """The measure of a kind.

    Args:
        kind: Of the rows.
        settings: Of the phase that learns preferences; None takes the defaults.
        labels: The class names of `classification`.
    """
    name: dict[RowKind, Name] = {"sft": "sft", "va": "dpo", "cls": "classification"}
    objective = registry.make_objective(name[kind], settings, labels)
    match kind:
        case "sft":
            return RowScorer(kind, objective, _text_scores, _text)
        case "va":
            return RowScorer(kind, objective, _pair_scores, _Rewarded(settings or DpoSettings()))
        case "cls":
            return RowScorer(kind, objective, _class_scores, _Classified(len(labels)))


def _text_scores(model: torch.nn.Module, examples: Sequence[TokenisedExample]) -> list[float]:
    return evaluate.row_nats(model, examples, BATCH)


def _text(examples: Sequence[TokenisedExample], scores: Scores, _: Scores) -> EvalMetrics:
    return metrics.text_metrics(
        scores, [e.target_count for e in examples], [e.response_bytes for e in examples]
    )


def _pair_scores(
    model: torch.nn.Module, pairs: Sequence[TokenisedPair]
) -> list[tuple[float, float]]:
    return dpo.log_probabilities(model, pairs)


@dataclass(frozen=True)
class _Rewarded:
    settings: DpoSettings

    def __call__(
        self, pairs: Sequence[TokenisedPair], scores: Scores, reference: Scores
    ) -> EvalMetrics:
        lengths = [(pair.chosen.target_count, pair.rejected.target_count) for pair in pairs]
        return metrics.preference_metrics(scores, reference, lengths, self.settings.beta)


def _class_scores(
    model: torch.nn.Module, texts: Sequence[TokenisedText]
) -> list[tuple[float, int]]:
    return evaluate.class_scores(model, texts, BATCH)


@dataclass(frozen=True)
class _Classified:
    classes: int

    def __call__(self, texts: Sequence[TokenisedText], scores: Scores, _: Scores) -> EvalMetrics:
        return metrics.class_metrics(
            [nats for nats, _ in scores],
            [predicted for _, predicted in scores],
            [text.label for text in texts],
            self.classes,
        )

"""Scorers of each kind of rows, as values made of functions.

A score is a model's result for one row; the metrics of any set of rows follow from the scores of
its rows. So a model reads a row once, however many sets the row belongs to.

Scores are computed in the precision of training unless float32 is asked for. A reward is a small
difference of large sums, of which bfloat16 changes the second digit, so that log-probabilities are
computed and added up in float32 from the logits on. `fccl evaluate --precise` also computes the
model in float32, for figures that do not depend on what `learning.training.device` found fast.

Data path: `learning.data.rows` → `encode` → `score` → `sums` (`learning.evaluation.row_sums`), for
`worker.evaluation_runner` and, as metrics, for `evaluation.assessment`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from common.evaluation.sums import EvaluationSums
from common.protocol.fields import ROW_KINDS, RowKind
from common.protocol.tasks import DpoSettings, KtoSettings, PromptSpec
from learning.evaluation import inference, row_sums
from learning.evaluation.metrics import EvalMetrics, make_metrics
from learning.evaluation.row_sums import PairValues
from learning.objectives import dpo, kto, registry
from learning.objectives.classification import TokenisedText
from learning.objectives.dpo import TokenisedPair
from learning.objectives.kto import TokenisedRating
from learning.objectives.registry import Objective
from learning.objectives.tokens import TokenisedExample
from learning.training.batches import EVALUATION_TOKENS

_PART_TOKENS = 4 * EVALUATION_TOKENS  # scored between two reports of progress
Scores = Sequence[Any]
"""One entry for each example; only the functions of a kind know its type."""


@dataclass(frozen=True)
class RowScorer:
    """How to evaluate one kind of rows."""

    kind: RowKind
    objective: Objective  # its `encode` makes examples of the rows
    # (model, examples, autocast=…) → a score of each, in their order
    score: Callable[..., Scores]
    # (examples, scores, scores of the reference) → sums over this set
    sums: Callable[[Sequence[Any], Scores, Scores], EvaluationSums]

    def metrics(self, examples: Sequence[Any], scores: Scores, reference: Scores) -> EvalMetrics:
        """Return the metrics of a set of examples."""
        return make_metrics(self.kind, self.sums(examples, scores, reference))


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
            return RowScorer(kind, objective, _text_scores, _text_sums)
        case "va":
            pairs = settings if isinstance(settings, DpoSettings) else DpoSettings()
            return RowScorer(kind, objective, _pair_scores, _PairSums(pairs))
        case "kto":
            ratings = settings if isinstance(settings, KtoSettings) else KtoSettings()
            return RowScorer(kind, objective, _rating_scores, _RatingSums(ratings))
        case "cls":
            return RowScorer(kind, objective, _class_scores, _ClassSums(len(labels)))


def costs(scorer: RowScorer, examples: Sequence[Any]) -> list[int]:
    """Return the number of tokens that a model reads for each example."""
    answers = scorer.objective.answers
    return [sum(each.length for each in answers(e)) or e.length for e in examples]


def score_in_parts(
    scorer: RowScorer,
    model: torch.nn.Module,
    examples: Sequence[Any],
    *,
    autocast: bool = False,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Scores:
    """Return the score of each example, in their order.

    `on_rows` is called with the number of rows just done; what it raises ends the scoring.
    """
    scores: list[Any] = [None] * len(examples)
    for part in _parts(costs(scorer, examples)):
        found = scorer.score(model, [examples[i] for i in part], autocast=autocast)
        for i, score in zip(part, found, strict=True):
            scores[i] = score
        on_rows(len(part))
    return scores


def _parts(costs: Sequence[int]) -> Iterator[list[int]]:
    """Yield the indexes of rows of similar lengths, of about `_PART_TOKENS` tokens each."""
    part: list[int] = []
    tokens = 0
    for i in sorted(range(len(costs)), key=costs.__getitem__):
        part.append(i)
        tokens += costs[i]
        if tokens >= _PART_TOKENS:
            yield part
            part, tokens = [], 0
    if part:
        yield part


def _text_scores(
    model: torch.nn.Module, examples: Sequence[TokenisedExample], *, autocast: bool = False
) -> list[float]:
    return inference.row_nats(model, examples, autocast=autocast)


def _text_sums(examples: Sequence[TokenisedExample], scores: Scores, _: Scores) -> EvaluationSums:
    return row_sums.text_sums(
        scores, [e.target_count for e in examples], [e.response_bytes for e in examples]
    )


def _pair_scores(
    model: torch.nn.Module, pairs: Sequence[TokenisedPair], *, autocast: bool = False
) -> list[tuple[float, float]]:
    return dpo.log_probabilities(model, pairs, autocast=autocast)


@dataclass(frozen=True)
class _PairSums:
    settings: DpoSettings

    def __call__(
        self, pairs: Sequence[TokenisedPair], scores: Scores, reference: Scores
    ) -> EvaluationSums:
        beta = self.settings.beta
        lengths = [(pair.chosen.target_count, pair.rejected.target_count) for pair in pairs]
        differences = [
            (ours[0] - known[0], ours[1] - known[1])
            for ours, known in zip(scores, reference, strict=True)
        ]
        rewards = [(beta * chosen, beta * rejected) for chosen, rejected in differences]
        losses = _pair_losses(differences, lengths, self.settings) if pairs else []
        return row_sums.preference_sums(scores, rewards, lengths, losses)


def _pair_losses(
    differences: PairValues, lengths: PairValues, settings: DpoSettings
) -> list[float]:
    """Return the loss of each pair, without the λ · sft term, which is a mean over a batch."""
    flat, sizes = (
        torch.tensor(values, dtype=torch.float64).T.flatten() for values in (differences, lengths)
    )
    return [float(loss) for loss in dpo.preference_loss(flat, sizes, settings)]


def _rating_scores(
    model: torch.nn.Module, ratings: Sequence[TokenisedRating], *, autocast: bool = False
) -> list[tuple[float, float]]:
    return kto.log_probabilities(model, ratings, autocast=autocast)


@dataclass(frozen=True)
class _RatingSums:
    settings: KtoSettings

    def __call__(
        self, ratings: Sequence[TokenisedRating], scores: Scores, reference: Scores
    ) -> EvaluationSums:
        answers, mismatched = (
            [ours[i] - known[i] for ours, known in zip(scores, reference, strict=True)]
            for i in range(2)
        )
        losses = kto.set_losses(answers, mismatched, ratings, self.settings)
        rewards = [self.settings.beta * each for each in answers]
        return row_sums.rating_sums(rewards, [rating.good for rating in ratings], losses)


def _class_scores(
    model: torch.nn.Module, texts: Sequence[TokenisedText], *, autocast: bool = False
) -> list[tuple[float, int]]:
    return inference.class_scores(model, texts, autocast=autocast)


@dataclass(frozen=True)
class _ClassSums:
    classes: int

    def __call__(self, texts: Sequence[TokenisedText], scores: Scores, _: Scores) -> EvaluationSums:
        return row_sums.class_sums(
            [nats for nats, _ in scores],
            [predicted for _, predicted in scores],
            [text.label for text in texts],
            self.classes,
        )

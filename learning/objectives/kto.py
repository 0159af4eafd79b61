"""Kahneman-Tversky optimisation: the objective that learns from answers rated good or bad.

The formulas are those of Ethayarajh et al. 2024, "KTO: Model Alignment as Prospect Theoretic
Optimization" (arXiv:2402.01306), eq. 8. With r = log π(y|x) − log π_ref(y|x), summed over an
answer's tokens, the loss of an answer is

    λ_D · (1 − σ(β·(r − z₀)))  if it is good,  λ_U · (1 − σ(β·(z₀ − r)))  if it is bad,

where z₀ = max(0, mean of log π(y'|x) − log π_ref(y'|x)) over the whole batch estimates the KL
divergence of π from π_ref. It is a constant of the batch, without gradient. The answer y' belongs
to another prompt: to the next row of the client that has one. It is fixed when rows are encoded, so
that the reference's log-probabilities of y and y' are constants, computed once per client. A row
that was encoded alone, as the only rating of a user, has no y' and no part in z₀; z₀ is 0 if no row
has one.

Data path: `learning.data.row_types` (rated answers) → here → `learning.training.batches` →
`KtoObjective.loss`, called by `learning.training.loop`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import fmean

import torch
from transformers import PreTrainedTokenizerBase

from common.protocol.tasks import KtoSettings, PromptSpec
from learning.data.row_types import RatedAnswer
from learning.evaluation.inference import row_nats
from learning.evaluation.measurement import Measurement
from learning.objectives.dpo import TOO_LONG
from learning.objectives.sft import token_nats
from learning.objectives.tokens import (
    IGNORED,
    NO_ROOM,
    EncodedRows,
    TokenisedExample,
    cut_example,
)
from learning.prompts.form import EncodedText, prompt_form
from learning.training import batches
from learning.training.batches import TokenBatch

LEAST_BATCH = 2
"""Least number of answers in a batch, and of rows of a client: z₀ needs answers of others."""


@dataclass(frozen=True)
class TokenisedRating:
    """One tokenised rated answer."""

    answer: TokenisedExample
    mismatched: TokenisedExample  # the same prompt with another row's answer, y'; or `answer`
    good: bool
    reference: tuple[float, float] | None = None  # log π_ref of answer and mismatched, in nats
    divergence: float = 0.0  # z₀ of its batch, in nats

    @property
    def length(self) -> int:
        return self.answer.length

    @property
    def is_matched(self) -> bool:
        """Whether another row has lent its answer, so that z₀ can be estimated with it."""
        return self.mismatched.input_ids != self.answer.input_ids


@dataclass(frozen=True)
class RatedBatch:
    """B rated answers, or a part of them."""

    rows: TokenBatch
    good: torch.Tensor  # bool (B,)
    reference: torch.Tensor  # log π_ref of each answer, float32 (B,)
    divergence: torch.Tensor  # z₀ of the whole batch, float32 (B,), equal values
    whole_size: int  # number of answers in the whole batch, by which the loss is divided

    @property
    def size(self) -> int:
        return self.rows.size

    @property
    def tokens(self) -> int:
        return self.rows.tokens

    @property
    def target_count(self) -> int:
        """Number of answers: the loss is a mean over them."""
        return self.size


def encode(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[RatedAnswer],
    max_length: int,
    prompt: PromptSpec | None = None,
) -> EncodedRows[TokenisedRating]:
    """Tokenise rated answers; skip one that does not fit into `max_length`.

    Answers are not cut: a cut answer has lost its end, and the rating was for the whole. Mismatched
    answers, which only have to be plausible text, are.

    Args:
        prompt: The run's prompt form; None is the Alpaca form.

    Raises:
        ModelError: The prompt form does not end answers, so that a model would not stop.
    """
    form = prompt_form(tokenizer, prompt)
    _ = form.end_ids
    texts: list[TokenisedExample] = []
    kept: list[int] = []
    skipped: Counter[str] = Counter()
    for i, text in enumerate(form.encode_rated(rows)):
        if isinstance(text, str):
            skipped[text] += 1
        elif reason := _unusable(text, max_length):
            skipped[reason] += 1
        else:
            texts.append(cut_example(text, max_length))
            kept.append(i)
    examples = tuple(
        TokenisedRating(answer, _mismatch(answer, other, max_length), rows[i].good)
        for i, answer, other in zip(kept, texts, _others(texts), strict=True)
    )
    return EncodedRows(examples, tuple(kept), dict(skipped))


def _unusable(text: EncodedText, max_length: int) -> str | None:
    if text.learned().index(True) + 2 > max_length:
        return NO_ROOM  # for one token and the end
    return TOO_LONG if len(text.ids) > max_length else None


def _prompt_length(answer: TokenisedExample) -> int:
    return next(i for i, label in enumerate(answer.labels) if label != IGNORED)


def _others(texts: Sequence[TokenisedExample]) -> list[TokenisedExample]:
    """Return for each answer that of the next one with another prompt, or else the next one.

    Two ratings of one prompt often follow each other, and the answers of one prompt are alike.
    """
    numbers: dict[tuple[int, ...], int] = {}
    prompts = [
        numbers.setdefault(text.input_ids[: _prompt_length(text)], len(numbers)) for text in texts
    ]
    others: list[TokenisedExample] = []
    for i, prompt in enumerate(prompts):
        following = chain(range(i + 1, len(prompts)), range(i))
        place = next((j for j in following if prompts[j] != prompt), (i + 1) % len(prompts))
        others.append(texts[place])
    return others


def _mismatch(
    answer: TokenisedExample, other: TokenisedExample, max_length: int
) -> TokenisedExample:
    """Return the prompt of one answer with the tokens of another, cut to `max_length`."""
    end, begin = _prompt_length(answer), _prompt_length(other)
    ids = answer.input_ids[:end] + other.input_ids[begin:]
    labels = answer.labels[:end] + other.labels[begin:]
    return TokenisedExample(ids[:max_length], labels[:max_length], 0)


def collate(
    ratings: Sequence[TokenisedRating],
    device: torch.device | None = None,
    whole: Sequence[TokenisedRating] | None = None,
) -> RatedBatch:
    """Pad answers to the longest of them. Those without a reference count as zero.

    Args:
        whole: All answers of the batch that `ratings` are a part of; None if they are all.
    """
    return RatedBatch(
        batches.collate([rating.answer for rating in ratings], device),
        torch.tensor([rating.good for rating in ratings], device=device),
        torch.tensor([(rating.reference or (0.0,))[0] for rating in ratings], device=device),
        torch.tensor([rating.divergence for rating in ratings], device=device),
        len(ratings if whole is None else whole),
    )


def log_probabilities(
    model: torch.nn.Module, ratings: Sequence[TokenisedRating], *, autocast: bool = False
) -> list[tuple[float, float]]:
    """Return log π of each answer and of its mismatched answer, summed over tokens, in nats."""
    rows = [each for rating in ratings for each in answers(rating)]
    nats = row_nats(model, rows, autocast=autocast)
    return [(-own, -other) for own, other in zip(nats[::2], nats[1::2], strict=True)]


def answers(rating: TokenisedRating) -> tuple[TokenisedExample, TokenisedExample]:
    return rating.answer, rating.mismatched


def with_reference(rating: TokenisedRating, nats: Sequence[float]) -> TokenisedRating:
    """Return a rating with log π_ref of its answers, in the order of `answers`."""
    own, other = nats
    return replace(rating, reference=(own, other))


def rating_loss(
    scores: torch.Tensor, good: torch.Tensor, divergence: torch.Tensor, settings: KtoSettings
) -> torch.Tensor:
    """Return the loss of each answer, (B,).

    Args:
        scores: log π − log π_ref of each answer, (B,).
        good: Which of them are good, bool (B,).
        divergence: z₀, (B,) or a scalar.
        settings: β and the weights.
    """
    above = settings.beta * (scores - divergence)
    desirable = settings.good_weight * (1 - torch.sigmoid(above))
    undesirable = settings.bad_weight * (1 - torch.sigmoid(-above))
    return torch.where(good, desirable, undesirable)


def set_losses(
    scores: Sequence[float],
    mismatched: Sequence[float],
    ratings: Sequence[TokenisedRating],
    settings: KtoSettings,
) -> list[float]:
    """Return the loss of each answer of a set, with z₀ of the set.

    Args:
        scores: log π − log π_ref of each answer.
        mismatched: The same of each mismatched answer.
        ratings: The answers.
        settings: β and the weights.
    """
    matched = [s for s, rating in zip(mismatched, ratings, strict=True) if rating.is_matched]
    good = torch.tensor([rating.good for rating in ratings], dtype=torch.bool)
    z = torch.tensor(_divergence(matched), dtype=torch.float64)
    losses = rating_loss(torch.tensor(scores, dtype=torch.float64), good, z, settings)
    return [float(loss) for loss in losses]


def _divergence(mismatched: Sequence[float]) -> float:
    """Return z₀ from log π − log π_ref of mismatched answers, in nats."""
    return max(0.0, sum(mismatched) / len(mismatched)) if mismatched else 0.0


@dataclass(frozen=True)
class KtoObjective:
    """Learning from ratings with its settings."""

    settings: KtoSettings

    def prepare_batch(
        self, model: torch.nn.Module, ratings: Sequence[TokenisedRating], size: int
    ) -> list[TokenisedRating]:
        """Return all answers of a batch with its z₀, computed in parts of `size` answers."""
        matched = [rating for rating in ratings if rating.is_matched]
        with torch.no_grad():
            policy = _sums(model, [rating.mismatched for rating in matched], size)
        known = [(rating.reference or (0.0, 0.0))[1] for rating in matched]
        found = _divergence([ours - ref for ours, ref in zip(policy, known, strict=True)])
        return [replace(rating, divergence=found) for rating in ratings]

    def loss(
        self, model: torch.nn.Module, batch: RatedBatch
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the sum of the losses of the answers, divided by the size of the whole batch.

        Returns:
            The loss (a scalar with gradient); `accuracy`, the share of answers whose reward has the
            right sign, and `divergence`, z₀ in nats.
        """
        scores = _batch_sums(model, batch.rows) - batch.reference
        loss = rating_loss(scores, batch.good, batch.divergence, self.settings).sum()
        right = _correct(scores.detach(), batch.good)
        figures = {"accuracy": float(right.mean()), "divergence": float(batch.divergence[0])}
        return loss / batch.whole_size, figures

    def measure(
        self, model: torch.nn.Module, ratings: Sequence[TokenisedRating], *, autocast: bool = False
    ) -> Measurement:
        """Return the mean loss with z₀ of all answers, and the share of rewards of the right sign.

        A reward of 0 counts half; where a model is its own reference, every one is 0.
        """
        nats = log_probabilities(model, ratings, autocast=autocast)
        known = [rating.reference or (0.0, 0.0) for rating in ratings]
        scores, mismatched = (
            [ours[i] - ref[i] for ours, ref in zip(nats, known, strict=True)] for i in range(2)
        )
        good = torch.tensor([rating.good for rating in ratings])
        right = _correct(torch.tensor(scores), good).mean()
        return Measurement(
            fmean(set_losses(scores, mismatched, ratings, self.settings)), float(right)
        )


def _sums(model: torch.nn.Module, texts: Sequence[TokenisedExample], size: int) -> list[float]:
    """Return log π of each answer, computed in batches of `size`, in the mode of the model."""
    device = next(model.parameters()).device
    order = batches.length_order(texts)
    sums = [0.0] * len(texts)
    for start in range(0, len(order), size):
        places = order[start : start + size]
        batch = batches.collate([texts[place] for place in places], device)
        for place, nats in zip(places, _batch_sums(model, batch).tolist(), strict=True):
            sums[place] = nats
    return sums


def _batch_sums(model: torch.nn.Module, rows: TokenBatch) -> torch.Tensor:
    """Return log π of each row, float32 (B,)."""
    nats, owner = token_nats(model, rows)
    return torch.zeros(rows.size, device=nats.device).index_add(0, owner, -nats)


def _correct(scores: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
    """Return 1 for each reward of the right sign, ½ for a reward of 0."""
    right = torch.where(good, scores > 0, scores < 0)
    return right.float() + 0.5 * (scores == 0).float()

"""Losses and class probabilities of single rows, as a model computes them.

Nats per token compare versions of one model; bits per byte also compare models whose tokenizers
differ. Both are over the responses, end of sequence included, which are the tokens that are
learned.

Data path: `learning.objectives` (tokenised rows) → here → `learning.evaluation.row_scores`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch.nn.functional import cross_entropy

from common.errors import DataError
from learning.evaluation.measurement import evaluation_mode
from learning.evaluation.metrics import EvalMetrics, make_metrics
from learning.evaluation.row_sums import text_sums
from learning.objectives import classification
from learning.objectives.classification import TokenisedText
from learning.objectives.sft import token_nats
from learning.objectives.tokens import IGNORED, TokenisedExample
from learning.training.batches import Example, collate, computed_batches, length_order
from learning.training.fast_path import fast_path

T = TypeVar("T")


def evaluate(
    model: torch.nn.Module,
    examples: Sequence[TokenisedExample],
    *,
    autocast: bool = False,
) -> EvalMetrics:
    """Return the metrics of a model's text loss (kind `sft`) on some examples.

    Raises:
        DataError: There are no examples.
    """
    if not examples:
        raise DataError("there is nothing to evaluate on", "give rows that fit into max_length")
    nats = row_nats(model, examples, autocast=autocast)
    tokens = [example.target_count for example in examples]
    return make_metrics(
        "sft", text_sums(nats, tokens, [example.response_bytes for example in examples])
    )


def row_nats(
    model: torch.nn.Module,
    examples: Sequence[TokenisedExample],
    *,
    autocast: bool = False,
) -> list[float]:
    """Return −log p(response | prompt) of each example, in nats, in the order of the examples."""
    device = next(model.parameters()).device
    sums: list[float] = []
    with evaluation_mode(model, autocast=autocast), fast_path(model, autocast=autocast):
        for batch, (nats, rows) in computed_batches(
            examples, partial(collate, device=device), lambda batch: token_nats(model, batch)
        ):
            sums += torch.zeros(batch.size, device=device).index_add(0, rows, nats).tolist()
    return restore_order(sums, examples)


def class_scores(
    model: torch.nn.Module, texts: Sequence[TokenisedText], *, autocast: bool = False
) -> list[tuple[float, int]]:
    """Return each text's −log p of the true class, in nats, and its likeliest class, in order."""
    scores: list[tuple[float, int]] = []
    for logits, labels in _class_logits(model, texts, autocast=autocast):
        nats = cross_entropy(logits, labels, reduction="none")
        scores += zip(nats.tolist(), logits.argmax(-1).tolist(), strict=True)
    return restore_order(scores, texts)


def class_answers(
    model: torch.nn.Module, texts: Sequence[TokenisedText], *, autocast: bool = False
) -> list[tuple[int, float]]:
    """Return the likeliest class of each text and its probability, in order."""
    answers: list[tuple[int, float]] = []
    for logits, _ in _class_logits(model, texts, autocast=autocast):
        probability, label = logits.softmax(-1).max(-1)
        answers += zip(label.tolist(), probability.tolist(), strict=True)
    return restore_order(answers, texts)


def class_probabilities(
    model: torch.nn.Module, texts: Sequence[TokenisedText], *, autocast: bool = False
) -> list[tuple[float, ...]]:
    """Return the probability of every class, for each text in order."""
    probabilities: list[tuple[float, ...]] = []
    for logits, _ in _class_logits(model, texts, autocast=autocast):
        probabilities += map(tuple, logits.softmax(-1).tolist())
    return restore_order(probabilities, texts)


def _class_logits(
    model: torch.nn.Module, texts: Sequence[TokenisedText], *, autocast: bool = False
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield float32 logits (B, classes) and true classes, in the order of `sorted_batches`."""
    device = next(model.parameters()).device
    with evaluation_mode(model, autocast=autocast):
        for batch, logits in computed_batches(
            texts,
            partial(classification.collate, device=device),
            lambda batch: classification.class_logits(model, batch),
        ):
            yield logits, batch.labels


def restore_order(values: Sequence[T], examples: Sequence[Example]) -> list[T]:
    """Return values in the order of `sorted_batches` in the order of the examples."""
    places = length_order(examples)
    return [values[at] for at in sorted(range(len(places)), key=places.__getitem__)]


def unigram_entropy(examples: Sequence[TokenisedExample]) -> float:
    """Return nats per response token of the best model without context, −Σ p·log p.

    p are the frequencies in this very text: a base model that is no better has not learned it.
    """
    counts = Counter(label for e in examples for label in e.labels if label != IGNORED)
    total = counts.total()
    return -sum(n / total * math.log(n / total) for n in counts.values())

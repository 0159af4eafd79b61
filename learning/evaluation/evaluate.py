"""How good a model is on rows that it was not trained on: nats, perplexity, bits per byte, text.

Nats per token compare versions of one model; bits per byte also compare models whose tokenizers
differ. Both are over the responses, the end of sequence included, so they measure what is learned.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.errors import DataError
from learning.evaluation import metrics
from learning.evaluation.measurement import inference
from learning.objectives import classification
from learning.objectives.classification import TokenisedText
from learning.objectives.sft import token_nats
from learning.objectives.tokens import IGNORED, TokenisedExample, prompt_ids
from learning.training.batches import Example, collate, length_order, sorted_batches

T = TypeVar("T")


@dataclass(frozen=True)
class Evaluation:
    """Loss on a set of examples.

    Attributes:
        nats_per_token: Mean −log p of a response token.
        perplexity: exp(nats_per_token).
        bits_per_byte: All nats / (ln 2 · bytes of the responses).
        tokens: Response tokens, ends of sequence included.
        bytes: UTF-8 bytes of the responses.
    """

    nats_per_token: float
    perplexity: float
    bits_per_byte: float
    tokens: int
    bytes: int


def evaluate(
    model: torch.nn.Module,
    examples: Sequence[TokenisedExample],
    batch_size: int,
    *,
    autocast: bool = False,
) -> Evaluation:
    """Measures a model on its device, without dropout; its mode is restored.

    Raises:
        DataError: There are no examples.
    """
    if not examples:
        raise DataError("there is nothing to evaluate on", "give rows that fit into max_length")
    nats = row_nats(model, examples, batch_size, autocast=autocast)
    found = metrics.text_metrics(
        nats, [e.target_count for e in examples], [e.response_bytes for e in examples]
    )
    return Evaluation(
        found.values["nats_per_token"],
        found.values["perplexity"],
        found.values["bits_per_byte"],
        int(found.values["tokens"]),
        int(found.values["bytes"]),
    )


def row_nats(
    model: torch.nn.Module,
    examples: Sequence[TokenisedExample],
    batch_size: int,
    *,
    autocast: bool = False,
) -> list[float]:
    """−log p(response | prompt) of each example, in nats, in the order of the examples."""
    device = next(model.parameters()).device
    found: list[float] = []
    with inference(model, autocast=autocast):
        for batch in sorted_batches(examples, batch_size, partial(collate, device=device)):
            nats, rows = token_nats(model, batch)
            sums = torch.zeros(batch.size, device=device).index_add(0, rows, nats)
            found += sums.tolist()
    return restore_order(found, examples)


def class_scores(
    model: torch.nn.Module, texts: Sequence[TokenisedText], batch_size: int
) -> list[tuple[float, int]]:
    """−log p of the true class, in nats, and the likeliest class of each text, in their order."""
    found: list[tuple[float, int]] = []
    for logits, labels in _class_logits(model, texts, batch_size):
        nats = cross_entropy(logits, labels, reduction="none")
        found += zip(nats.tolist(), logits.argmax(-1).tolist(), strict=True)
    return restore_order(found, texts)


def class_answers(
    model: torch.nn.Module, texts: Sequence[TokenisedText], batch_size: int
) -> list[tuple[int, float]]:
    """The likeliest class of each text, and its probability, in their order."""
    found: list[tuple[int, float]] = []
    for logits, _ in _class_logits(model, texts, batch_size):
        probability, label = logits.softmax(-1).max(-1)
        found += zip(label.tolist(), probability.tolist(), strict=True)
    return restore_order(found, texts)


def class_probabilities(
    model: torch.nn.Module, texts: Sequence[TokenisedText], batch_size: int
) -> list[tuple[float, ...]]:
    """The probability of every class, for each text in their order."""
    found: list[tuple[float, ...]] = []
    for logits, _ in _class_logits(model, texts, batch_size):
        found += map(tuple, logits.softmax(-1).tolist())
    return restore_order(found, texts)


def _class_logits(
    model: torch.nn.Module, texts: Sequence[TokenisedText], batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """float32 logits (B, classes) and true classes, in the order of `learning.training.batches.sorted_batches`."""
    device = next(model.parameters()).device
    with inference(model):
        for batch in sorted_batches(
            texts, batch_size, partial(classification.collate, device=device)
        ):
            out = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
            yield out.logits.float(), batch.labels


def restore_order(found: Sequence[T], examples: Sequence[Example]) -> list[T]:
    """What was found in the order of `learning.training.batches.sorted_batches`, in that of the examples."""
    places = length_order(examples)
    return [found[at] for at in sorted(range(len(places)), key=places.__getitem__)]


def unigram_entropy(examples: Sequence[TokenisedExample]) -> float:
    """Nats per response token of the best model that knows no context, −Σ p·log p.

    p are the frequencies of this very text: a base model that does not beat it has not read it.
    """
    counts = Counter(label for e in examples for label in e.labels if label != IGNORED)
    total = counts.total()
    return -sum(n / total * math.log(n / total) for n in counts.values())


@dataclass(frozen=True)
class Sampling:
    """An answer that is drawn, not the likeliest: nucleus sampling (Holtzman et al. 2020).

    Attributes:
        seed: Of the draw, on the model's device.
        temperature: Divides the logits.
        top_p: The likeliest tokens that together are so probable are drawn from.
    """

    seed: int
    temperature: float = 0.9
    top_p: float = 0.95


def generate(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_new_tokens: int,
    stopped: Callable[[], bool] = lambda: False,
    drawn: Sampling | None = None,
) -> list[str]:
    """A likely continuation of each prompt, without repeating four tokens in a row.

    Args:
        model: A causal language model, with or without adapter.
        tokenizer: Its tokenizer.
        prompts: Whole prompts (`learning.objectives.template.format_prompt`); one that leaves too little of the
            model's context loses its beginning.
        max_new_tokens: Length limit of an answer.
        stopped: Asked before every token; once true, the answers end where they are.
        drawn: How to draw one; None takes the likeliest token each time.
    """
    if not prompts:
        return []
    context = getattr(model.config, "max_position_embeddings", None) or 1 << 20
    new_tokens = min(max_new_tokens, context - 1)
    kept = [ids[-(context - new_tokens) :] for ids in prompt_ids(tokenizer, prompts)]
    width, end = max(map(len, kept)), tokenizer.eos_token_id
    # All at once, padded at the left: a token of three answers costs hardly more than of one.
    ids = torch.tensor([[end] * (width - len(row)) + row for row in kept], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in kept])
    with inference(model), _choice(drawn, model.device) as choice:
        out: torch.Tensor = cast(Any, model).generate(
            input_ids=ids,
            attention_mask=mask.to(model.device),
            max_new_tokens=new_tokens,
            pad_token_id=end,
            no_repeat_ngram_size=4,  # a small model's most likely text is a loop
            stopping_criteria=[lambda ids, *_, **__: _all(ids, stopped())],
            **choice,
        )
    texts = (tokenizer.decode(row, skip_special_tokens=True) for row in out[:, width:])
    return [str(text).strip() for text in texts]


def _all(ids: torch.Tensor, value: bool) -> torch.Tensor:
    """The same for each row: what transformers wants of a criterion."""
    return torch.full((ids.shape[0],), value, dtype=torch.bool, device=ids.device)


@contextmanager
def _choice(drawn: Sampling | None, device: torch.device) -> Iterator[dict[str, Any]]:
    """How transformers is to choose tokens; a draw leaves torch's random numbers as they were."""
    if drawn is None:
        yield {"do_sample": False}
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(drawn.seed)
        yield {
            "do_sample": True,
            "temperature": drawn.temperature,
            "top_p": drawn.top_p,
            "top_k": 0,
        }

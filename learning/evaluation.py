"""How good a model is on rows that it was not trained on: nats, perplexity, bits per byte, text.

Nats per token compare versions of one model; bits per byte also compare models whose tokenizers
differ. Both are over the responses, the end of sequence included, so they measure what is learned.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.errors import DataError
from learning.batches import collate, in_order
from learning.measuring import inference
from learning.sft import response_nats
from learning.tokens import IGNORED, Example, prompt_ids


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
    model: torch.nn.Module, examples: Sequence[Example], batch_size: int, *, autocast: bool = False
) -> Evaluation:
    """Measures a model on its device, without dropout; its mode is restored.

    Raises:
        DataError: There are no examples.
    """
    if not examples:
        raise DataError("there is nothing to evaluate on", "give rows that fit into max_length")
    device = next(model.parameters()).device
    nats, tokens, size = 0.0, 0, 0
    with inference(model, autocast=autocast):
        for batch in in_order(examples, batch_size, partial(collate, device=device)):
            nats += float(response_nats(model, batch))
            tokens += batch.learned
            size += batch.response_bytes
    mean = nats / tokens
    perplexity = math.exp(mean) if mean < 700 else math.inf
    return Evaluation(mean, perplexity, nats / math.log(2) / max(1, size), tokens, size)


def unigram_entropy(examples: Sequence[Example]) -> float:
    """Nats per response token of the best model that knows no context, −Σ p·log p.

    p are the frequencies of this very text: a base model that does not beat it has not read it.
    """
    counts = Counter(label for e in examples for label in e.labels if label != IGNORED)
    total = counts.total()
    return -sum(n / total * math.log(n / total) for n in counts.values())


def generate(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_new_tokens: int,
) -> list[str]:
    """A likely continuation of each prompt, greedily, without repeating four tokens in a row.

    Args:
        model: A causal language model, with or without adapter.
        tokenizer: Its tokenizer.
        prompts: Whole prompts (`learning.template.prompt`); one that leaves too little of the
            model's context loses its beginning.
        max_new_tokens: Length limit of an answer.
    """
    context = getattr(model.config, "max_position_embeddings", None) or 1 << 20
    answers = []
    with inference(model):
        for ids in prompt_ids(tokenizer, prompts):
            kept = torch.tensor([ids[-max(1, context - max_new_tokens) :]], device=model.device)
            out: torch.Tensor = cast(Any, model).generate(
                input_ids=kept,
                attention_mask=torch.ones_like(kept),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.eos_token_id,
                no_repeat_ngram_size=4,  # a small model's most likely text is a loop
            )
            new = out[0, kept.shape[1] :]
            answers.append(str(tokenizer.decode(new, skip_special_tokens=True)).strip())
    return answers

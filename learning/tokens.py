"""Rows become token ids: the prompt is read, only the response is learned.

Prompt and response are tokenised by one rule, here and when a model generates: each on its own,
without special tokens, and then joined. So the ids of a prompt in training are exactly the ids
that the model sees when it is asked (a joint tokenisation can merge across the border).

Data path: `learning.shards` (rows) → here → `learning.batches`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from common.errors import ModelError
from learning.instructions import Instruction
from learning.template import prompt

IGNORED = -100
"""The label of a position that is not learned; what torch's cross entropy ignores by default."""


@dataclass(frozen=True)
class Example:
    """One tokenised row.

    Attributes:
        input_ids: Prompt, response and, unless truncated, the end-of-sequence token.
        labels: As long as `input_ids`; `IGNORED` on the prompt. Not shifted.
        response_bytes: UTF-8 bytes of the response that `labels` cover.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    response_bytes: int

    @property
    def learned(self) -> int:
        """How many positions are learned."""
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True)
class Encoded:
    """Tokenised rows, and what it took to make them fit."""

    examples: tuple[Example, ...]
    skipped_count: int
    truncated_count: int


def encode(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Instruction], max_length: int
) -> Encoded:
    """Tokenises rows to at most `max_length` ids each.

    A response that does not fit loses its tail, and then no end of sequence is learned; a row whose
    prompt leaves no room for a single token of the response is skipped. Both are counted.

    Raises:
        ModelError: The tokenizer has no end-of-sequence token.
    """
    end = tokenizer.eos_token_id
    if not isinstance(end, int):
        raise ModelError(
            "the tokenizer has no end-of-sequence token", "use a model made for text generation"
        )
    prompts = prompt_ids(tokenizer, [prompt(row.instruction, row.input) for row in rows])
    texts = [row.output.strip() for row in rows]
    responses = _plain(tokenizer, texts)
    examples: list[Example] = []
    truncated = 0
    for asked, response, text in zip(prompts, responses, texts, strict=True):
        room = max_length - len(asked)
        if room < 1 or not asked:
            continue
        learned, size = [*response, end], len(text.encode())
        if len(learned) > room:
            truncated += 1
            learned = learned[:room]
            size = min(size, len(str(tokenizer.decode(learned)).encode()))
        examples.append(Example((*asked, *learned), (IGNORED,) * len(asked) + tuple(learned), size))
    return Encoded(tuple(examples), len(rows) - len(examples), truncated)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """The ids of prompts, after the begin-of-sequence token where this tokenizer sets one."""
    begin = [i for i in tokenizer("").input_ids if i == tokenizer.bos_token_id][:1]
    return [[*begin, *ids] for ids in _plain(tokenizer, prompts)]


def _plain(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False).input_ids
    return ids

"""Tokenised instructions: the prompt is read, only the response is learned.

Prompt and response are tokenised by one rule, here and when a model generates: each on its own,
without special tokens, and then joined. So the ids of a prompt in training are exactly those in
generation (a joint tokenisation can merge across the border).

Data path: `learning.data.shards` (rows) → here → `learning.training.batches`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from transformers import PreTrainedTokenizerBase

from common.errors import ModelError
from learning.data.row_types import Instruction
from learning.objectives.template import format_prompt

IGNORED = -100
"""Label of a position that is not learned; torch's cross entropy ignores it by default."""


@dataclass(frozen=True)
class TokenisedExample:
    """One tokenised row."""

    input_ids: tuple[int, ...]  # prompt, response and, unless truncated, end of sequence
    labels: tuple[int, ...]  # as long as `input_ids`; IGNORED on the prompt; not shifted
    response_bytes: int  # UTF-8 bytes of the response that `labels` cover

    @property
    def length(self) -> int:
        return len(self.input_ids)

    @property
    def target_count(self) -> int:
        """Number of positions that are learned."""
        return sum(label != IGNORED for label in self.labels)


E = TypeVar("E")


@dataclass(frozen=True)
class EncodedRows(Generic[E]):
    """Tokenised rows, and counts of those that were cut or left out to make them fit."""

    examples: tuple[E, ...]  # in the order of the rows
    kept: tuple[int, ...]  # index of each example's row
    skipped: Mapping[str, int]  # number of rows left out, by reason
    truncated_count: int = 0  # examples that lost their end


NO_ROOM = "prompt leaves no room for a response"


def encode(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Instruction], max_length: int
) -> EncodedRows[TokenisedExample]:
    """Tokenise rows to at most `max_length` ids each.

    A response that does not fit loses its tail, and then no end of sequence is learned; a row whose
    prompt leaves no room for a single token of the response is skipped. Both are counted.

    Raises:
        ModelError: The tokenizer has no end-of-sequence token.
    """
    end = end_id(tokenizer)
    prompts = prompt_ids(tokenizer, [format_prompt(row.instruction, row.input) for row in rows])
    texts = [row.output.strip() for row in rows]
    responses = plain_ids(tokenizer, texts)
    examples: list[TokenisedExample] = []
    kept: list[int] = []
    truncated = 0
    for i, (prompt, response, text) in enumerate(zip(prompts, responses, texts, strict=True)):
        room = max_length - len(prompt)
        if room < 1 or not prompt:
            continue
        kept.append(i)
        targets, size = [*response, end], len(text.encode())
        if len(targets) > room:
            truncated += 1
            targets = targets[:room]
            size = min(size, len(str(tokenizer.decode(targets)).encode()))
        examples.append(make_example(prompt, targets, size))
    skipped = {NO_ROOM: len(rows) - len(kept)} if len(kept) < len(rows) else {}
    return EncodedRows(tuple(examples), tuple(kept), skipped, truncated)


def make_example(
    prompt: Sequence[int], response: Sequence[int], response_bytes: int
) -> TokenisedExample:
    """Return the example that reads a prompt and learns a response, both given as token ids."""
    labels = (IGNORED,) * len(prompt) + tuple(response)
    return TokenisedExample((*prompt, *response), labels, response_bytes)


def end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id of the end-of-sequence token.

    Raises:
        ModelError: The tokenizer has none.
    """
    end = tokenizer.eos_token_id
    if not isinstance(end, int):
        raise ModelError(
            "the tokenizer has no end-of-sequence token", "use a model made for text generation"
        )
    return end


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """Return the ids of prompts, after the begin-of-sequence token where the tokenizer sets one."""
    begin = [i for i in tokenizer("").input_ids if i == tokenizer.bos_token_id][:1]
    return [[*begin, *ids] for ids in plain_ids(tokenizer, prompts)]


def plain_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of each text by itself, without special tokens."""
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False).input_ids
    return ids

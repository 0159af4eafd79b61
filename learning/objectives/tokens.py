"""Rows become token ids: the prompt is read, only the response is learned.

Prompt and response are tokenised by one rule, here and when a model generates: each on its own,
without special tokens, and then joined. So the ids of a prompt in training are exactly the ids
that the model sees when it is asked (a joint tokenisation can merge across the border).

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
"""The label of a position that is not learned; what torch's cross entropy ignores by default."""


@dataclass(frozen=True)
class TokenisedExample:
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
    def length(self) -> int:
        """Tokens of prompt and response."""
        return len(self.input_ids)

    @property
    def target_count(self) -> int:
        """How many positions are learned."""
        return sum(label != IGNORED for label in self.labels)


E = TypeVar("E")


@dataclass(frozen=True)
class EncodedRows(Generic[E]):
    """Tokenised rows, and what it took to make them fit.

    Attributes:
        examples: Those that can be learned from, in the order of the rows.
        kept: The place of each of them among the rows.
        skipped: Rows left out, by reason.
        truncated_count: Examples that lost their end.
    """

    examples: tuple[E, ...]
    kept: tuple[int, ...]
    skipped: Mapping[str, int]
    truncated_count: int = 0


NO_ROOM = "prompt leaves no room for a response"


def encode(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Instruction], max_length: int
) -> EncodedRows[TokenisedExample]:
    """Tokenises rows to at most `max_length` ids each.

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
    for place, (asked, response, text) in enumerate(zip(prompts, responses, texts, strict=True)):
        room = max_length - len(asked)
        if room < 1 or not asked:
            continue
        kept.append(place)
        learned, size = [*response, end], len(text.encode())
        if len(learned) > room:
            truncated += 1
            learned = learned[:room]
            size = min(size, len(str(tokenizer.decode(learned)).encode()))
        examples.append(make_example(asked, learned, size))
    skipped = {NO_ROOM: len(rows) - len(kept)} if len(kept) < len(rows) else {}
    return EncodedRows(tuple(examples), tuple(kept), skipped, truncated)


def make_example(
    prompt: Sequence[int], response: Sequence[int], response_bytes: int
) -> TokenisedExample:
    """The example that reads a prompt and learns a response, both token ids."""
    labels = (IGNORED,) * len(prompt) + tuple(response)
    return TokenisedExample((*prompt, *response), labels, response_bytes)


def end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The end-of-sequence token.

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
    """The ids of prompts, after the begin-of-sequence token where this tokenizer sets one."""
    begin = [i for i in tokenizer("").input_ids if i == tokenizer.bos_token_id][:1]
    return [[*begin, *ids] for ids in plain_ids(tokenizer, prompts)]


def plain_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text by itself, without special tokens."""
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False).input_ids
    return ids

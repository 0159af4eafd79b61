"""Tokenised rows of supervised fine-tuning: only responses are learned, prompts are context.

The prompt form (`learning.prompts.form`) gives the tokens and says which belong to a response.

Data path: `learning.data.shards` (rows) → here → `learning.training.batches`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from transformers import PreTrainedTokenizerBase

from common.protocol.tasks import PromptSpec
from learning.data.row_types import Conversation, Instruction
from learning.prompts.form import EncodedText, prompt_form

IGNORED = -100
"""Label of a position that is not learned; torch's cross entropy ignores it by default."""


@dataclass(frozen=True)
class TokenisedExample:
    """One tokenised row."""

    input_ids: tuple[int, ...]  # prompt, response and, unless truncated, end of sequence
    labels: tuple[int, ...]  # as long as `input_ids`; IGNORED on prompts; not shifted
    response_bytes: int  # UTF-8 bytes of the responses that `labels` cover

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
    lost_answers: int = 0  # responses that are cut off as a whole


NO_ROOM = "prompt leaves no room for a response"


def encode(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Instruction | Conversation],
    max_length: int,
    prompt: PromptSpec | None = None,
) -> EncodedRows[TokenisedExample]:
    """Tokenise rows to at most `max_length` ids each.

    A row that is too long loses its end, and with it the end of a response or whole responses. A
    row is skipped if no token of a response fits, or if the chat template refuses it. All of these
    are counted.

    Args:
        prompt: The run's prompt form; None is the Alpaca form.

    Raises:
        ModelError: The prompt form does not end responses, so that a model would not stop.
    """
    form = prompt_form(tokenizer, prompt)
    _ = form.end_ids
    examples: list[TokenisedExample] = []
    kept: list[int] = []
    skipped: Counter[str] = Counter()
    truncated = lost = 0
    for i, text in enumerate(form.encode(rows)):
        if isinstance(text, str):
            skipped[text] += 1
            continue
        example = cut_example(text, max_length)
        if not example.target_count:
            skipped[NO_ROOM] += 1
            continue
        kept.append(i)
        examples.append(example)
        truncated += example.length < len(text.ids)
        lost += text.answers_after(example.length)
    return EncodedRows(tuple(examples), tuple(kept), dict(skipped), truncated, lost)


def cut_example(text: EncodedText, max_length: int) -> TokenisedExample:
    """Return the example of a row's text, cut to `max_length` tokens."""
    ids = tuple(text.ids[:max_length])
    labels = tuple(
        each if learned else IGNORED for each, learned in zip(ids, text.learned(), strict=False)
    )
    return TokenisedExample(ids, labels, text.answer_bytes(len(ids)))


def make_example(
    prompt: Sequence[int], response: Sequence[int], response_bytes: int
) -> TokenisedExample:
    """Return the example that reads a prompt and learns a response, both given as token ids."""
    labels = (IGNORED,) * len(prompt) + tuple(response)
    return TokenisedExample((*prompt, *response), labels, response_bytes)

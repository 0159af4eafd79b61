"""Token ids of rendered text, with the offsets of each token.

Text is tokenised as a whole, as transformers does, so that ids equal those of other tools. Only a
text with control strings of a row is split: these strings are tokenised as plain text, and the
parts between them separately.

Data path: `learning.prompts.spans` → here → `learning.prompts.form`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from learning.prompts.control_text import MarkedText, control_ids

Offsets = Sequence[tuple[int, int]]
_ANCHOR = "\n"


@dataclass(frozen=True)
class TextTokens:
    """Token ids of a text, and the span of characters of each token."""

    ids: Sequence[int]
    offsets: Offsets


def tokenise(tokenizer: PreTrainedTokenizerBase, texts: Sequence[MarkedText]) -> list[TextTokens]:
    """Return the tokens of texts; control strings in `MarkedText.plain` are tokenised as text."""
    whole = [each.text for each in texts if not each.plain]
    found = _call(tokenizer, whole) if whole else None
    tokens = iter(zip(found.input_ids, found.offset_mapping, strict=True) if found else ())
    control = control_ids(tokenizer)
    result: list[TextTokens] = []
    for each in texts:
        if each.plain:
            text = _tokenise_in_parts(tokenizer, each.text, each.plain)
        else:
            text = TextTokens(*next(tokens))
        if disguised := _disguised(each.text, text, control):
            text = _tokenise_in_parts(tokenizer, each.text, sorted([*each.plain, *disguised]))
        result.append(text)
    return result


def _disguised(text: str, tokens: TextTokens, control: Mapping[int, str]) -> Offsets:
    """Return the places of control tokens that the text does not spell.

    A normaliser may change other characters into a control string: wide ones, or upper case.
    """
    return [
        (begin, end)
        for each, (begin, end) in zip(tokens.ids, tokens.offsets, strict=True)
        if each in control and end > begin and control[each] not in text[begin:end]
    ]


def _tokenise_in_parts(tokenizer: PreTrainedTokenizerBase, text: str, plain: Offsets) -> TextTokens:
    ids: list[int] = []
    offsets: list[tuple[int, int]] = []
    at = 0
    for begin, end in [*plain, (len(text), len(text))]:
        parts = [(text[at:begin], at, False)]
        parts += [(part, start, True) for part, start in _plain_parts(tokenizer, text, begin, end)]
        for part, start, is_plain in parts:
            if part:
                found = _continued(tokenizer, part, is_plain, first=not ids)
                ids += found.ids
                offsets += [(start + a, start + b) for a, b in found.offsets]
        at = end
    return TextTokens(ids, offsets)


def _plain_parts(
    tokenizer: PreTrainedTokenizerBase, text: str, begin: int, end: int
) -> list[tuple[str, int]]:
    """Return a control string with its position; in two parts if it is a token even as text."""
    whole = text[begin:end]
    added = tokenizer.added_tokens_decoder
    if not any(each in added for each in _call(tokenizer, whole, plain=True).input_ids):
        return [(whole, begin)]
    return [(whole[:1], begin), (whole[1:], begin + 1)]


def _continued(
    tokenizer: PreTrainedTokenizerBase, text: str, plain: bool, first: bool
) -> TextTokens:
    """Return the tokens of a text that continues another one.

    Some tokenizers put a space before the first word of a text, but not after a line break.
    """
    alone = _call(tokenizer, text, plain=plain)
    result = TextTokens(alone.input_ids, alone.offset_mapping)
    if first:
        return result
    anchor = list(_call(tokenizer, _ANCHOR).input_ids)
    after = _call(tokenizer, _ANCHOR + text, plain=plain)
    if list(after.input_ids[: len(anchor)]) != anchor:
        return result  # the line break has merged with the text
    offsets = [(max(a - 1, 0), b - 1) for a, b in after.offset_mapping[len(anchor) :]]
    return TextTokens(after.input_ids[len(anchor) :], offsets)


def _call(tokenizer: PreTrainedTokenizerBase, text: str | list[str], *, plain: bool = False) -> Any:
    return tokenizer(
        text,
        add_special_tokens=False,
        return_offsets_mapping=True,
        split_special_tokens=plain,
        verbose=False,
    )

"""Control strings in the text of rows, which must stay text.

A tokenizer turns every `<|im_end|>` into the token that ends a turn. A row that mentions the string
would end a turn in the middle of a sentence, and any author of rows could insert turns into the
training of the common model. So every control string of a row is marked before a template is
rendered, and the marked strings are tokenised as plain text.

Data path: `learning.prompts.messages` → here, around `learning.prompts.rendering` →
`learning.prompts.tokenisation`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from learning.prompts.messages import Chat, TemplateError

_MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]  # Unicode's noncharacters
_CONTROL_FORM = re.compile(r"<\|.*\|>", re.DOTALL)


def control_ids(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Return the control tokens of a tokenizer: its special tokens, and added ones like `<|…|>`.

    These are its special tokens and added tokens of the form `<|…|>`. Other added tokens (runs of
    spaces, tags of a markup, `<think>`) are ordinary words.
    """
    return {
        index: token.content
        for index, token in tokenizer.added_tokens_decoder.items()
        if token.content.strip() and (token.special or _CONTROL_FORM.fullmatch(token.content))
    }


def control_strings(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return the strings that a tokenizer turns into control tokens, the longest first."""
    strings = set(control_ids(tokenizer).values())
    return tuple(sorted(strings, key=lambda text: (-len(text), text)))


Spans = list[tuple[int, int]]
"""Begin and end of parts of a text, in characters; the end is exclusive."""


@dataclass(frozen=True)
class MarkedText:
    """A rendered text without marks."""

    text: str
    spans: Spans  # of the answers
    plain: Spans  # of control strings that came from a row, and are text


@dataclass(frozen=True)
class ControlText:
    """Control strings of a tokenizer, to be marked in a chat and found in its rendered text."""

    pattern: re.Pattern[str] | None  # None for a tokenizer without control strings

    def mark(self, chat: Chat) -> tuple[Chat, str]:
        """Return the chat with a mark in every control string, and the mark; empty if none has one.

        Raises:
            TemplateError: The chat contains every character that could be a mark.
        """
        pattern, texts = self.pattern, [*_texts(chat.turns), *_texts(chat.tools)]
        if pattern is None or not any(map(pattern.search, texts)):
            return chat, ""
        used: set[str] = set().union(*texts)
        mark = next((each for each in _MARKS if each not in used), None)
        if mark is None:
            raise TemplateError("the text has control strings and too many noncharacters")

        def marked(text: str) -> str:
            return pattern.sub(lambda found: found[0][0] + mark + found[0][1:], text)

        turns = tuple(_map_text(turn, marked) for turn in chat.turns)
        return Chat(turns, tuple(_map_text(tool, marked) for tool in chat.tools)), mark

    def unmark(self, text: str, mark: str, spans: Spans) -> MarkedText:
        """Return a rendered text without its marks, and with its spans moved accordingly."""
        if not mark or self.pattern is None:
            return MarkedText(text, spans, [])
        clean = text.replace(mark, "")
        moved = [
            (begin - text.count(mark, 0, begin), end - text.count(mark, 0, end))
            for begin, end in spans
        ]
        plain: Spans = []
        for removed, found in enumerate(re.finditer(mark, text)):
            begin = found.start() - removed - 1  # the mark follows the first character
            if begin >= 0 and (match := self.pattern.match(clean, begin)):
                plain.append(match.span())
        return MarkedText(clean, moved, plain)

    def words(self, text: MarkedText) -> Spans:
        """Return the spans of the answers without end-of-turn strings and outer white space."""
        return [self._words(text, begin, end) for begin, end in text.spans]

    def _words(self, text: MarkedText, begin: int, end: int) -> tuple[int, int]:
        controls = self.pattern.finditer(text.text, begin, end) if self.pattern else iter(())
        stop = end
        for first, last in reversed([found.span() for found in controls]):
            if (first, last) in text.plain or text.text[last:stop].strip():
                break
            stop = first
        words = text.text[begin:stop]
        first = begin + len(words) - len(words.lstrip())
        return first, max(first, begin + len(words.rstrip()))


def control_pattern(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str] | None:
    """Return a pattern of the control strings; None for a tokenizer that has none."""
    strings = control_strings(tokenizer)
    return re.compile("|".join(map(re.escape, strings))) if strings else None


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts that `_map_text` changes."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from () if key == "role" else _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _map_text(value: Any, change: Callable[[str], str]) -> Any:
    """Return a JSON value with every text in it changed, keys included, except a turn's role."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {
            change(key): inner if key == "role" else _map_text(inner, change)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_map_text(inner, change) for inner in value]
    return value

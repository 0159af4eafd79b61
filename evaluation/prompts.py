"""Questions and expected answers of held-out rows, for people."""

from __future__ import annotations

from collections.abc import Sequence

from common.text import one_line
from learning.data.row_types import (
    Conversation,
    Instruction,
    LabelledText,
    Message,
    PreferencePair,
    RatedAnswer,
    Row,
)


def format_line(text: str, limit: int = 300) -> str:
    """Return text as one line of at most `limit` characters, without terminal control codes."""
    return " ".join(one_line(text).split())[:limit]


def format_question(row: Row) -> str:
    """Return a row's question for people: without the template, or the text to classify.

    For a conversation it is the turn before the last answer, with the number of earlier turns.
    """
    match row:
        case Instruction():
            return f"{row.instruction} {row.input}"
        case Conversation():
            return _turns_before(row.before_answer()) + row.question
        case PreferencePair() | RatedAnswer():
            earlier = () if isinstance(row.prompt, str) else row.prompt
            return _turns_before(earlier) + row.question
        case LabelledText():
            return row.text


def _turns_before(turns: Sequence[Message]) -> str:
    """Return a note on the turns before a question; empty if there are none."""
    earlier = turns[:-1]
    count = sum(turn.role != "system" for turn in earlier)
    parts = ["a system prompt"] if any(turn.role == "system" for turn in earlier) else []
    parts += [f"{count} earlier {'turn' if count == 1 else 'turns'}"] if count else []
    return f"(after {' and '.join(parts)}) " if parts else ""


def expected_answer(row: Row) -> str:
    match row:
        case Instruction():
            return row.output
        case Conversation():
            return row.answer
        case PreferencePair():
            return row.chosen
        case RatedAnswer():
            return row.completion if row.good else f"(rated bad) {row.completion}"
        case LabelledText():
            return row.label

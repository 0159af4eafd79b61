"""Questions and expected answers of held-out rows, for people."""

from __future__ import annotations

from common.protocol.fields import one_line
from learning.data.row_types import Conversation, Instruction, LabelledText, PreferencePair, Row


def format_line(text: str, limit: int = 300) -> str:
    """Return text as one line of at most `limit` characters, without terminal control codes."""
    return " ".join(one_line(text).split())[:limit]


def format_question(row: Row) -> str:
    """Return a row's question for people: without the template, or the text to classify."""
    match row:
        case Instruction():
            return f"{row.instruction} {row.input}"
        case Conversation() | PreferencePair():
            return row.question
        case LabelledText():
            return row.text


def expected_answer(row: Row) -> str:
    match row:
        case Instruction():
            return row.output
        case Conversation():
            return row.answer
        case PreferencePair():
            return row.chosen
        case LabelledText():
            return row.label

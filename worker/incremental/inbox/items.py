"""Items of the inbox: corrections and ratings by users, in the form of rows to learn from.

Pure. Items come from `inbox/record_parser.py` and go on to `inbox/inbox.py`. They are private: no
error message contains any of their text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.errors import DataError
from common.protocol.fields import RowKind
from common.text import is_one_line
from learning.data.message_parser import parse_messages
from learning.data.row_types import (
    Conversation,
    Instruction,
    LabelledText,
    Message,
    PreferencePair,
    RatedAnswer,
    Row,
)

DEFAULT_TASK = "feedback"
"""Stream of an item that does not name one."""

FIELDS: Mapping[RowKind, tuple[str, ...]] = {
    "sft": ("instruction", "input", "output"),
    "va": ("prompt", "chosen", "rejected"),
    "kto": ("prompt", "completion", "label"),
    "cls": ("text", "label"),
}
"""Fields of an item, by kind: those of the row in `learning/data`, without its topic."""

MESSAGES, TOOLS = "messages", "tools"
"""Fields of an item with several turns, as JSON text. The messages are a whole conversation, or the
prompt of a preference pair or of a rated answer."""

GOOD, BAD = "good", "bad"
"""Labels of a rated answer."""

_INPUTS: Mapping[RowKind, tuple[str, ...]] = {
    "sft": ("instruction", "input"),
    "va": ("prompt",),
    "kto": ("prompt",),
    "cls": ("text",),
}

_TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MAX_NAMES = 20  # in one message


@dataclass(frozen=True)
class Item:
    """One correction, example or rating by a user."""

    kind: RowKind
    fields: Mapping[str, str]  # with the names in `FIELDS`, or MESSAGES and TOOLS
    task: str = DEFAULT_TASK  # stream that it belongs to: a domain, a product, a ward

    @property
    def key(self) -> str:
        """SHA-256 (hex) that identifies equal items, ignoring white space around the fields."""
        if MESSAGES not in self.fields:
            return _digest([self.kind, *(self._part(name) for name in FIELDS[self.kind])])
        answers = [self._part(name) for name in self.fields if name not in (MESSAGES, TOOLS)]
        return _digest([self.kind, self._turns(), self.fields.get(TOOLS, ""), *answers])

    @property
    def input_key(self) -> str:
        """SHA-256 (hex) that identifies items with the same input, whatever their answers.

        The input of a conversation is all before its last answer. That of a preference pair is its
        prompt with the unordered pair of answers: two pairs of one prompt contradict each other
        only if they rank the same two answers. That of a rating is the prompt with the answer.
        """
        parts: list[object] = [self.kind]
        if MESSAGES in self.fields:
            turns = self._turns()
            parts += [turns[:-1] if self.kind == "sft" else turns, self.fields.get(TOOLS, "")]
        else:
            parts += [self._part(name) for name in _INPUTS[self.kind]]
        if self.kind == "va":
            parts += sorted((self._part("chosen"), self._part("rejected")))
        if self.kind == "kto":
            parts.append(self._part("completion"))
        return _digest(parts)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The turns of the item; empty if it has one question or text."""
        turns = self.fields.get(MESSAGES)
        return () if turns is None else parse_messages(MESSAGES, turns)

    @property
    def row(self) -> Row:
        """The row that the item is learned as."""
        fields, tools = self.fields, self.fields.get(TOOLS, "")
        match self.kind:
            case "cls":
                return LabelledText(**fields)
            case "va":
                answers = fields["chosen"], fields["rejected"]
                return PreferencePair(self._prompt, *answers, tools=tools)
            case "kto":
                good = fields["label"] == GOOD
                return RatedAnswer(self._prompt, fields["completion"], good, tools=tools)
            case "sft" if MESSAGES in fields:
                return Conversation(self.messages, tools)
            case "sft":
                return Instruction(**fields)

    @property
    def question_and_answer(self) -> tuple[str, str]:
        """The input and the answer to learn, or the one that was rated.

        Each turn of a conversation begins with its role.
        """
        match self.kind:
            case "cls":
                return self.fields["text"], self.fields["label"]
            case "va" | "kto":
                asked = _transcript(self.messages) or self.fields["prompt"]
                return asked, self.fields["chosen" if self.kind == "va" else "completion"]
            case "sft" if turns := self.messages:
                return _transcript(turns[:-1]), turns[-1].content or turns[-1].tool_calls
            case "sft":
                question = f"{self.fields['instruction']}\n{self.fields['input']}".strip()
                return question, self.fields["output"]

    @property
    def rating(self) -> str | None:
        """`GOOD` or `BAD`; None for an item that is not a rating."""
        return self.fields["label"] if self.kind == "kto" else None

    def texts(self) -> tuple[tuple[str, str], ...]:
        """Return the texts of the item for people, each with the name of its field or its role."""
        turns = tuple((turn.role, text) for turn in self.messages for text in _said(turn))
        return turns + tuple(
            (name, text) for name, text in self.fields.items() if text and name != MESSAGES
        )

    @property
    def _prompt(self) -> str | tuple[Message, ...]:
        return self.messages or self.fields["prompt"]

    def _part(self, name: str) -> str:
        return self.fields[name].strip()

    def _turns(self) -> list[list[str]]:
        return [[turn.role, turn.content.strip(), turn.tool_calls] for turn in self.messages]


@dataclass(frozen=True)
class StoredItem:
    """An item in the inbox with its state; a row of table `item` (`schema.py`)."""

    COLUMNS = "id, kind, fields, task, source, at, state, held, reason"

    id: int
    item: Item
    source: str
    at: float
    state: str
    held_out: bool  # used to measure only, never to train
    reason: str  # of a rejection; may contain user text

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> StoredItem:
        number, kind, fields, task, source, at, state, held, reason = row
        item = Item(kind, json.loads(fields), task)
        return cls(number, item, source, at, state, bool(held), reason)


def check_task(task: str) -> None:
    """Raise `DataError` unless this is a valid name of a stream."""
    if not _TASK_NAME.fullmatch(task):
        raise DataError(
            "the task is not a valid name",
            "use at most 64 letters, digits, _ . or -, beginning with a letter or a digit",
        )


def name_list(names: Sequence[str]) -> str:
    """Return names for a message: on one line, and not too many."""
    printable = [name if is_one_line(name) else ascii(name) for name in names[:_MAX_NAMES]]
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(printable) + more


def _said(turn: Message) -> tuple[str, ...]:
    return tuple(filter(None, (turn.content, turn.tool_calls)))


def _transcript(turns: Sequence[Message]) -> str:
    return "\n".join(f"{turn.role}: {text}" for turn in turns for text in _said(turn))


def _digest(parts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

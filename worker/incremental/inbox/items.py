"""Items of the inbox: corrections by users, in the form of rows to learn from.

Pure. A record from JSON or from a command line becomes an item here or is refused with a reason; an
item goes on to `worker/incremental/inbox/inbox.py`. Items are private: no reason contains any of
their text, not even an unknown label, which may be a text in the wrong field.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from common.errors import DataError
from common.protocol.fields import RowKind
from learning.data.field_values import UnusableRow
from learning.data.message_parser import is_conversation, messages_to_json, parse_messages
from learning.data.preference_parser import parse_preference
from learning.data.row_parser import (
    COLUMN_NAMES,
    CONVERSATION_COLUMNS,
    parse_instruction,
    parse_labelled_text,
)
from learning.data.row_types import (
    Conversation,
    Instruction,
    LabelledText,
    Message,
    PreferencePair,
    Row,
)

DEFAULT_TASK = "feedback"
"""Stream of an item that does not name one."""

FIELDS: Mapping[RowKind, tuple[str, ...]] = {
    "sft": ("instruction", "input", "output"),
    "va": ("prompt", "chosen", "rejected"),
    "cls": ("text", "label"),
}
"""Fields of an item, by kind: those of the row in `learning/data`, without its topic."""

MESSAGES, TOOLS = "messages", "tools"
"""Fields of an item with several turns, as JSON text. The messages are a whole conversation, or the
prompt of a preference pair."""

# Kinds in the order in which they are tried: a pair often has the columns of an instruction, too.
_ORDER: tuple[RowKind, ...] = ("va", "sft", "cls")
_FORMS: Mapping[RowKind, tuple[tuple[str, ...], ...]] = {
    "va": (("chosen", "rejected"),),
    "sft": (("instruction", "output"), ("messages",)),
    "cls": (("text", "label"),),
}
_DESCRIPTIONS: Mapping[RowKind, str] = {
    "sft": "an instruction with its answer",
    "va": "a prompt with a better and a worse answer",
    "cls": "a text with its label",
}
_REQUIRED: Mapping[RowKind, str] = {
    "sft": "instruction and response",
    "va": "prompt, chosen and rejected",
    "cls": "text and label",
}
_TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MAX_NAMES = 20  # in one message


@dataclass(frozen=True)
class Item:
    """One correction or example by a user."""

    kind: RowKind
    fields: Mapping[str, str]  # with the names in `FIELDS`, or MESSAGES and TOOLS
    task: str = DEFAULT_TASK  # stream that it belongs to: a domain, a product, a ward

    @property
    def key(self) -> str:
        """SHA-256 (hex) that identifies equal items, ignoring white space around the fields."""
        if MESSAGES not in self.fields:
            return _digest([self.kind, *(self._part(name) for name in FIELDS[self.kind])])
        answers = [self._part(name) for name in ("chosen", "rejected") if name in self.fields]
        return _digest([self.kind, self._turns(), self.fields.get(TOOLS, ""), *answers])

    @property
    def input_key(self) -> str:
        """SHA-256 (hex) that identifies items with the same input, whatever their answers.

        The input of a conversation is all before its last answer. That of a preference pair is its
        prompt with the unordered pair of answers: two pairs of one prompt contradict each other
        only if they rank the same two answers.
        """
        parts: list[object] = [self.kind]
        if MESSAGES in self.fields:
            turns = self._turns()
            parts += [turns[:-1] if self.kind == "sft" else turns, self.fields.get(TOOLS, "")]
        else:
            names = {"sft": ("instruction", "input"), "cls": ("text",), "va": ("prompt",)}
            parts += [self._part(name) for name in names[self.kind]]
        if self.kind == "va":
            parts += sorted((self._part("chosen"), self._part("rejected")))
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
            case "va" if MESSAGES in fields:
                answers = fields["chosen"], fields["rejected"]
                return PreferencePair(self.messages, *answers, tools=tools)
            case "va":
                return PreferencePair(**fields)
            case "kto":
                raise NotImplementedError
            case "sft" if MESSAGES in fields:
                return Conversation(self.messages, tools)
            case "sft":
                return Instruction(**fields)

    @property
    def question_and_answer(self) -> tuple[str, str]:
        """The input and the answer to learn; each turn of a conversation begins with its role."""
        match self.kind:
            case "cls":
                return self.fields["text"], self.fields["label"]
            case "va":
                asked = _transcript(self.messages) or self.fields["prompt"]
                return asked, self.fields["chosen"]
            case "kto":
                raise NotImplementedError
            case "sft" if turns := self.messages:
                return _transcript(turns[:-1]), turns[-1].content or turns[-1].tool_calls
            case "sft":
                question = f"{self.fields['instruction']}\n{self.fields['input']}".strip()
                return question, self.fields["output"]

    def texts(self) -> tuple[tuple[str, str], ...]:
        """Return the texts of the item for people, each with the name of its field or its role."""
        turns = tuple((turn.role, text) for turn in self.messages for text in _said(turn))
        return turns + tuple(
            (name, text) for name, text in self.fields.items() if text and name != MESSAGES
        )

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


def parse(
    record: Mapping[str, object],
    *,
    max_chars: int,
    labels: Sequence[str] = (),
    kinds: Sequence[RowKind] = (),
    task: str = DEFAULT_TASK,
) -> Item:
    """Return the item that a record describes; its fields may have the names that data sets use.

    Args:
        record: An object of JSON, or the options of a command line.
        max_chars: Limit on the characters of all fields together.
        labels: Classes of the run; empty allows any label.
        kinds: Kinds of rows that the run learns from; empty allows any.

    Raises:
        DataError: The record is no item. The message never contains its text.
    """
    check_task(task)
    try:
        item = Item(*_row(_kind(record, tuple(kinds)), record), task)
    except UnusableRow as reason:
        raise DataError(str(reason)) from None
    if labels and item.kind == "cls" and item.fields["label"] not in labels:
        raise DataError("the label is not a class of this run", f"use one of {name_list(labels)}")
    if (chars := sum(len(text) for _, text in item.texts())) > max_chars:
        raise DataError(
            f"the item has {chars} characters, more than {max_chars}",
            "shorten it, or raise incremental.max_chars",
        )
    return item


def check_task(task: str) -> None:
    """Raise `DataError` unless this is a valid name of a stream."""
    if not _TASK_NAME.fullmatch(task):
        raise DataError(
            "the task is not a valid name",
            "use at most 64 letters, digits, _ . or -, beginning with a letter or a digit",
        )


def name_list(names: Sequence[str]) -> str:
    """Return names for a message: on one line, and not too many."""
    printable = [name if name.isprintable() else ascii(name) for name in names[:_MAX_NAMES]]
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(printable) + more


def _kind(record: Mapping[str, object], kinds: tuple[RowKind, ...]) -> RowKind:
    """Return the kind that a record's fields match best; `learning/data` checks what is missing."""
    present = {
        name.lower() for name, value in record.items() if value is not None and _counts(name, value)
    }
    every: tuple[RowKind, ...] = get_args(RowKind)
    allowed = [kind for kind in _ORDER if kind in (kinds or every)]

    def has(kind: RowKind, field: str) -> bool:
        return not present.isdisjoint(COLUMN_NAMES[kind][field])

    def whole(kind: RowKind) -> bool:
        return any(all(has(kind, field) for field in form) for form in _FORMS[kind])

    if complete := [kind for kind in allowed if whole(kind)]:
        return complete[0]
    required = "; or ".join(_REQUIRED[kind] for kind in allowed)
    if other := [kind for kind in _ORDER if whole(kind)]:
        raise DataError(
            f"the item is {_DESCRIPTIONS[other[0]]}, which this run does not learn",
            f"give {required}",
        )
    parts = {
        kind: sum(has(kind, field) for form in _FORMS[kind] for field in form) for kind in allowed
    }
    nearest = max(allowed, key=lambda kind: parts[kind])
    if not parts[nearest]:
        raise DataError("the record has none of the fields of an item", f"give {required}")
    return nearest


def _counts(name: str, value: object) -> bool:
    """Return whether a value is usable in a column of this name."""
    others = name.lower() in CONVERSATION_COLUMNS and name.lower() != MESSAGES
    return is_conversation(value) if others else True  # `turns` may also be their number


def _row(kind: RowKind, record: Mapping[str, object]) -> tuple[RowKind, dict[str, str]]:
    match kind:
        case "sft":
            return kind, _instruction_fields(parse_instruction(record, {}, _refuse_omission))
        case "va":
            pair = parse_preference(record, {}, _refuse_omission)
            answers = {"chosen": pair.chosen, "rejected": pair.rejected}
            if isinstance(pair.prompt, str):
                return kind, {"prompt": pair.prompt, **answers}
            if len(pair.prompt) == 1 and pair.prompt[0].role == "user" and not pair.tools:
                return kind, {"prompt": pair.prompt[0].content, **answers}
            return kind, {**_message_fields(pair.prompt, pair.tools), **answers}
        case "kto":
            raise NotImplementedError
        case "cls":
            row = parse_labelled_text(record, {})
            return kind, {"text": row.text, "label": row.label}


def _instruction_fields(row: Instruction | Conversation) -> dict[str, str]:
    """Return the fields of an item; a conversation of one exchange becomes an instruction."""
    if isinstance(row, Instruction):
        return {"instruction": row.instruction, "input": row.input, "output": row.output}
    match row.messages:
        case (Message("user", question), Message("assistant", answer, "")) if not row.tools:
            return {"instruction": question, "input": "", "output": answer}
    return _message_fields(row.messages, row.tools)


def _message_fields(turns: Sequence[Message], tools: str) -> dict[str, str]:
    text = json.dumps(messages_to_json(turns), ensure_ascii=False)
    return {MESSAGES: text, **({TOOLS: tools} if tools else {})}


def _refuse_omission(part: str) -> None:
    """Raise `UnusableRow`, since the author of an item can correct it."""
    raise UnusableRow(f"the item would be learned only in part: {part}")


def _said(turn: Message) -> tuple[str, ...]:
    return tuple(filter(None, (turn.content, turn.tool_calls)))


def _transcript(turns: Sequence[Message]) -> str:
    return "\n".join(f"{turn.role}: {text}" for turn in turns for text in _said(turn))


def _digest(parts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

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
from learning.data import row_parser

DEFAULT_TASK = "feedback"
"""Stream of an item that does not name one."""

FIELDS: Mapping[RowKind, tuple[str, ...]] = {
    "sft": ("instruction", "input", "output"),
    "va": ("prompt", "chosen", "rejected"),
    "cls": ("text", "label"),
}
"""Fields of an item, by kind: those of the row in `learning/data`, without its topic."""

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
    fields: Mapping[str, str]  # with the names in `FIELDS`
    task: str = DEFAULT_TASK  # stream that it belongs to: a domain, a product, a ward

    @property
    def key(self) -> str:
        """SHA-256 (hex) that identifies equal items, ignoring white space around the fields."""
        return _digest([self.kind, *(self._part(name) for name in FIELDS[self.kind])])

    @property
    def input_key(self) -> str:
        """SHA-256 (hex) that identifies items with the same input, whatever their answers.

        The input of a preference pair is its prompt with the unordered pair of answers: two pairs
        of one prompt contradict each other only if they rank the same two answers.
        """
        match self.kind:
            case "sft":
                parts = [self._part("instruction"), self._part("input")]
            case "cls":
                parts = [self._part("text")]
            case "va":
                answers = sorted((self._part("chosen"), self._part("rejected")))
                parts = [self._part("prompt"), *answers]
        return _digest([self.kind, *parts])

    @property
    def question_and_answer(self) -> tuple[str, str]:
        match self.kind:
            case "cls":
                return self.fields["text"], self.fields["label"]
            case "va":
                return self.fields["prompt"], self.fields["chosen"]
            case "sft":
                question = f"{self.fields['instruction']}\n{self.fields['input']}".strip()
                return question, self.fields["output"]

    def _part(self, name: str) -> str:
        return self.fields[name].strip()


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
    except row_parser.UnusableRow as reason:
        raise DataError(str(reason)) from None
    if labels and item.kind == "cls" and item.fields["label"] not in labels:
        raise DataError("the label is not a class of this run", f"use one of {name_list(labels)}")
    if (chars := sum(map(len, item.fields.values()))) > max_chars:
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
    present = {name.lower() for name, value in record.items() if value is not None}
    every: tuple[RowKind, ...] = get_args(RowKind)
    allowed = [kind for kind in _ORDER if kind in (kinds or every)]

    def has(kind: RowKind, field: str) -> bool:
        return not present.isdisjoint(row_parser.COLUMN_NAMES[kind][field])

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


def _row(kind: RowKind, record: Mapping[str, object]) -> tuple[RowKind, dict[str, str]]:
    match kind:
        case "sft":
            instruction = row_parser.parse_instruction(record, {})
            values = (instruction.instruction, instruction.input, instruction.output)
        case "va":
            pair = row_parser.parse_preference(record, {})
            values = (pair.question, pair.chosen, pair.rejected)
        case "cls":
            row = row_parser.parse_labelled_text(record, {})
            return kind, {"text": row.text, "label": row.label}
    return kind, dict(zip(FIELDS[kind], values, strict=True))


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

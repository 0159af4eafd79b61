"""Parser of records: a record of a user or a program becomes an item, or is refused with a reason.

Pure. A record comes from JSON (`inbox/item_parser.py`) or from the options of a command line; its
fields have the names that data sets use, and those decide its kind. No reason contains any of the
text, not even an unknown label, which may be a text in the wrong field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import get_args

from common.errors import DataError
from common.protocol.fields import RowKind
from learning.data.field_values import UnusableRow
from learning.data.message_parser import is_conversation, messages_to_json
from learning.data.preference_parser import parse_preference
from learning.data.rating_parser import parse_ratings
from learning.data.row_parser import (
    COLUMN_NAMES,
    CONVERSATION_COLUMNS,
    parse_instruction,
    parse_labelled_text,
)
from learning.data.row_types import Conversation, Instruction, Message
from worker.incremental.inbox.items import (
    BAD,
    DEFAULT_TASK,
    GOOD,
    MESSAGES,
    TOOLS,
    Item,
    check_task,
    name_list,
)

# Kinds in the order in which they are tried. A pair and a rated answer often have the columns of an
# instruction, too: an answer that nobody liked must not be learned as a right one.
_ORDER: tuple[RowKind, ...] = ("va", "kto", "sft", "cls")
_FORMS: Mapping[RowKind, tuple[tuple[str, ...], ...]] = {
    "va": (("chosen", "rejected"),),
    "kto": (("completion", "label"), (MESSAGES, "label")),
    "sft": (("instruction", "output"), (MESSAGES,)),
    "cls": (("text", "label"),),
}
_DESCRIPTIONS: Mapping[RowKind, str] = {
    "sft": "an instruction with its answer",
    "va": "a prompt with a better and a worse answer",
    "kto": "a prompt with a rated answer",
    "cls": "a text with its label",
}
_REQUIRED: Mapping[RowKind, str] = {
    "sft": "instruction and response",
    "va": "prompt, chosen and rejected",
    "kto": "prompt, response and label (true or false)",
    "cls": "text and label",
}


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


def _kind(record: Mapping[str, object], kinds: tuple[RowKind, ...]) -> RowKind:
    """Return the kind that a record's fields match best; `learning/data` checks what is missing."""
    present = {
        name.lower() for name, value in record.items() if value is not None and _counts(name, value)
    }
    every: tuple[RowKind, ...] = get_args(RowKind)
    allowed = [kind for kind in _ORDER if kind in (kinds or every)]

    def has(kind: RowKind, field: str) -> bool:
        names = CONVERSATION_COLUMNS if field == MESSAGES else COLUMN_NAMES[kind][field]
        return not present.isdisjoint(names)

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
        kind: max(sum(has(kind, field) for field in form) for form in _FORMS[kind])
        for kind in allowed
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
            prompt = _prompt_fields(pair.prompt, pair.tools)
            return kind, {**prompt, "chosen": pair.chosen, "rejected": pair.rejected}
        case "kto":
            rated, *_ = parse_ratings(record, {}, _refuse_omission)
            prompt = _prompt_fields(rated.prompt, rated.tools)
            label = GOOD if rated.good else BAD
            return kind, {**prompt, "completion": rated.completion, "label": label}
        case "cls":
            row = parse_labelled_text(record, {})
            return kind, {"text": row.text, "label": row.label}


def _prompt_fields(prompt: str | tuple[Message, ...], tools: str) -> dict[str, str]:
    """Return the fields of a prompt; a single turn of the user becomes a text."""
    if isinstance(prompt, str):
        return {"prompt": prompt}
    if len(prompt) == 1 and prompt[0].role == "user" and not tools:
        return {"prompt": prompt[0].content}
    return _message_fields(prompt, tools)


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

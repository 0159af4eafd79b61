"""An item of the inbox: one thing that a user taught, in the form of a row to learn from.

Pure. Whatever comes through a front door, from JSON or from a command line, becomes an item here or
is refused with a reason. Items are private: no reason holds any of their text, not even a label
that there is not, which may be a text in the wrong place. Next: `worker/incremental/inbox/inbox.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from common.errors import DataError
from common.protocol.fields import RowKind
from learning.data import row_parser

TASK = "feedback"
"""The stream of an item that names none."""

FIELDS: Mapping[RowKind, tuple[str, ...]] = {
    "sft": ("instruction", "input", "output"),
    "va": ("prompt", "chosen", "rejected"),
    "cls": ("text", "label"),
}
"""What an item of a kind holds: the row of `learning/data`, without its topic."""

_ORDER: tuple[RowKind, ...] = ("va", "sft", "cls")  # a pair often has an answer's columns, too
_FORMS: Mapping[RowKind, tuple[tuple[str, ...], ...]] = {
    "va": (("chosen", "rejected"),),
    "sft": (("instruction", "output"), ("messages",)),
    "cls": (("text", "label"),),
}
_CALLED: Mapping[RowKind, str] = {
    "sft": "an instruction with its answer",
    "va": "a prompt with a better and a worse answer",
    "cls": "a text with its label",
}
_GIVE: Mapping[RowKind, str] = {
    "sft": "instruction and response",
    "va": "prompt, chosen and rejected",
    "cls": "text and label",
}
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_LISTED = 20  # class names in one message


@dataclass(frozen=True)
class Item:
    """One item.

    Attributes:
        kind: Which rows it belongs to.
        fields: The row; see `FIELDS`.
        task: The stream that it belongs to: a domain, a product, a ward.
    """

    kind: RowKind
    fields: Mapping[str, str]
    task: str = TASK

    @property
    def key(self) -> str:
        """Equal for the same item (SHA-256, hex), whatever white space is around its parts."""
        return _digest([self.kind, *(self._part(name) for name in FIELDS[self.kind])])

    @property
    def input_key(self) -> str:
        """The same of what is asked, without the answer.

        What is asked about a preference pair is which of its two answers is the better: two pairs
        of one prompt contradict each other only where they are of the same two answers.
        """
        match self.kind:
            case "sft":
                asked = [self._part("instruction"), self._part("input")]
            case "cls":
                asked = [self._part("text")]
            case "va":
                answers = sorted((self._part("chosen"), self._part("rejected")))
                asked = [self._part("prompt"), *answers]
        return _digest([self.kind, *asked])

    def _part(self, name: str) -> str:
        return self.fields[name].strip()


def parse(
    record: Mapping[str, object],
    *,
    max_chars: int,
    labels: Sequence[str] = (),
    kinds: Sequence[RowKind] = (),
    task: str = TASK,
) -> Item:
    """An item from a record, whose fields have the names that data sets give them.

    Args:
        record: Of JSON, of a table or of a command line.
        max_chars: Of all fields together.
        labels: The classes that there are; empty for any.
        kinds: What the run learns from; empty for anything.
        task: The stream.

    Raises:
        DataError: It is none. The reason never holds its text.
    """
    check_task(task)
    try:
        item = Item(*_row(_kind(record, tuple(kinds)), record), task)
    except row_parser.UnusableRow as reason:
        raise DataError(str(reason)) from None
    if labels and item.kind == "cls" and item.fields["label"] not in labels:
        raise DataError("the label is none of the classes", f"they are {listed(labels)}")
    if (chars := sum(map(len, item.fields.values()))) > max_chars:
        raise DataError(
            f"the item has {chars} characters, more than {max_chars}",
            "shorten it, or raise incremental.max_chars",
        )
    return item


def check_task(task: str) -> None:
    """Refuse what cannot name a stream.

    Raises:
        DataError: It is no name.
    """
    if not _LABEL.fullmatch(task):
        raise DataError(
            "the task is no name", "letters, digits, and then also _ . -; at most 64 characters"
        )


def listed(names: Sequence[str]) -> str:
    """Names for a message: on one line, and not too many."""
    shown = [name if name.isprintable() else ascii(name) for name in names[:_LISTED]]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(shown) + more


def _kind(record: Mapping[str, object], kinds: tuple[RowKind, ...]) -> RowKind:
    """What a record is meant to be; columns tell what is wrong with one that lacks something."""
    there = {name.lower() for name, value in record.items() if value is not None}
    every: tuple[RowKind, ...] = get_args(RowKind)
    wanted = [kind for kind in _ORDER if kind in (kinds or every)]

    def has(kind: RowKind, field: str) -> bool:
        return not there.isdisjoint(row_parser.COLUMN_NAMES[kind][field])

    def whole(kind: RowKind) -> bool:
        return any(all(has(kind, field) for field in form) for form in _FORMS[kind])

    if found := [kind for kind in wanted if whole(kind)]:
        return found[0]
    give = "; or ".join(_GIVE[kind] for kind in wanted)
    if other := [kind for kind in _ORDER if whole(kind)]:
        raise DataError(f"it is {_CALLED[other[0]]}, which this run does not learn", f"give {give}")
    parts = {
        kind: sum(has(kind, field) for form in _FORMS[kind] for field in form) for kind in wanted
    }
    nearest = max(wanted, key=lambda kind: parts[kind])
    if not parts[nearest]:
        raise DataError("it has none of the fields of an item", f"give {give}")
    return nearest


def _row(kind: RowKind, record: Mapping[str, object]) -> tuple[RowKind, dict[str, str]]:
    match kind:
        case "sft":
            task = row_parser.parse_instruction(record, {})
            values = (task.instruction, task.input, task.output)
        case "va":
            pair = row_parser.parse_preference(record, {})
            values = (pair.prompt, pair.chosen, pair.rejected)
        case "cls":
            row = row_parser.parse_labelled_text(record, {})
            return kind, {"text": row.text, "label": row.label}
    return kind, dict(zip(FIELDS[kind], values, strict=True))


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

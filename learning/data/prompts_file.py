"""Prompts that versions answer during a run, from the file of `samples.prompts_file`.

A line is a prompt (`prompt`, or `instruction` and `input`), a conversation (`messages`) that ends
with a turn of the user, a text to classify (`text`), or a whole row with its expected answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import DataError
from common.protocol.fields import RowKind
from learning.data import row_parser, tables
from learning.data.field_values import UnusableRow
from learning.data.row_types import Instruction, Row

_PLACEHOLDER = "-"  # for an answer that is not known; a row needs one
_ASKING = ("user", "human")  # roles whose turn is to be answered


@dataclass(frozen=True)
class Prompt:
    """A row to answer, with the expected answer if the file has one."""

    row: Row
    expected: str | None  # None: not known


def read_prompts(path: Path, count: int, labels: Sequence[str]) -> tuple[Prompt, ...]:
    """Return the first prompts of a file.

    Args:
        path: JSONL, JSON, CSV, TSV or Parquet.
        count: The most prompts to read.
        labels: Class names of a run that classifies; empty for one that generates.

    Raises:
        DataError: The file cannot be read, or one of these lines has no prompt.
    """
    kind: RowKind = "cls" if labels else "sft"
    names = row_parser.known_columns(kind, {})
    prompts: list[Prompt] = []
    for line, record in tables.open_table(path, names).records:
        if len(prompts) == count:
            break
        try:
            if isinstance(record, str):
                raise UnusableRow(record)
            prompts.append(_parse_text(record, labels) if labels else _parse_prompt(record))
        except UnusableRow as reason:
            raise DataError(
                f"line {line} of {path} has no prompt: {reason}",
                "give text" if labels else "give prompt, or messages that end with the user's",
            ) from None
    return tuple(prompts)


def _parse_prompt(record: Mapping[str, object]) -> Prompt:
    completed = _with_answer(record)
    row = row_parser.parse_instruction(completed, {})
    answer = row.output if isinstance(row, Instruction) else row.answer
    return Prompt(row, answer if completed is record else None)


def _with_answer(record: Mapping[str, object]) -> Mapping[str, object]:
    """Return the record itself if it has an answer; else a copy with a placeholder."""
    name, turns = row_parser.find_field("sft", "messages", record, {})
    if isinstance(turns, list):
        last = turns[-1] if turns and isinstance(turns[-1], Mapping) else {}
        role, text = ("from", "value") if "from" in last else ("role", "content")
        answer = {role: "assistant", text: _PLACEHOLDER}
        return {**record, name: [*turns, answer]} if last.get(role) in _ASKING else record
    name, value = row_parser.find_field("sft", "output", record, {})
    if value not in (None, "", []):
        return record
    _, prompt = row_parser.find_field("sft", "instruction", record, {})
    if isinstance(prompt, list):
        return {"messages": [*prompt, {"role": "assistant", "content": _PLACEHOLDER}]}
    return {**record, name: _PLACEHOLDER}


def _parse_text(record: Mapping[str, object], labels: Sequence[str]) -> Prompt:
    _, label = row_parser.find_field("cls", "label", record, {})
    if label is None:
        whole = {**record, "label": labels[0]}
        return Prompt(row_parser.parse_labelled_text(whole, {}, labels), None)
    row = row_parser.parse_labelled_text(record, {}, labels)
    return Prompt(row, row.label)

"""Prompts of a file: with and without an answer, as texts and as conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import DataError
from learning.data.prompts_file import Prompt, read_prompts
from learning.data.row_types import Conversation, Instruction, LabelledText

USER = {"role": "user", "content": "Why?"}
ANSWER = {"role": "assistant", "content": "So."}


def read(path: Path, *records: Any, labels: tuple[str, ...] = ()) -> tuple[Prompt, ...]:
    file = path / "p.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return read_prompts(file, 3, labels)


@pytest.mark.parametrize(
    ("record", "asked", "expected"),
    [
        ({"prompt": "Why?"}, "Why?", None),
        ({"instruction": "Why?", "input": "", "output": "So."}, "Why?", "So."),
        ({"messages": [USER]}, "Why?", None),
        ({"messages": [USER, ANSWER, USER]}, "Why?", None),
        ({"messages": [USER, ANSWER]}, "Why?", "So."),
        ({"conversations": [{"from": "human", "value": "Why?"}]}, "Why?", None),
        ({"prompt": [USER]}, "Why?", None),
    ],
)
def test_a_prompt_may_have_an_answer_or_none(
    tmp_path: Path, record: dict[str, Any], asked: str, expected: str | None
) -> None:
    (prompt,) = read(tmp_path, record)
    assert isinstance(prompt.row, Instruction | Conversation)
    found = prompt.row.instruction if isinstance(prompt.row, Instruction) else prompt.row.question
    assert (found, prompt.expected) == (asked, expected)


def test_a_text_to_classify_may_have_a_class_or_none(tmp_path: Path) -> None:
    both = read(tmp_path, {"text": "dull"}, {"text": "fine", "label": "b"}, labels=("a", "b"))
    assert [prompt.expected for prompt in both] == [None, "b"]
    assert [prompt.row for prompt in both] == [LabelledText("dull", "a"), LabelledText("fine", "b")]


def test_no_more_prompts_are_read_than_versions_answer(tmp_path: Path) -> None:
    assert len(read(tmp_path, *({"prompt": f"{i}?"} for i in range(9)))) == 3


@pytest.mark.parametrize("record", [{"text": "dull"}, {"prompt": " "}, {"messages": []}, 3])
def test_a_line_without_a_prompt_is_named(tmp_path: Path, record: object) -> None:
    with pytest.raises(DataError, match=r"line 2 of .*p\.jsonl has no prompt"):
        read(tmp_path, {"prompt": "Why?"}, record)

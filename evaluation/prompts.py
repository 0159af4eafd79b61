"""What a held-out row asks and expects, for models and for people. Pure.

`evaluation.assessment` asks for the report at the end, `evaluation.sample_answers` during the run.
"""

from __future__ import annotations

from typing import cast

from common.protocol.fields import one_line
from learning.data.row_types import Instruction, LabelledText, PreferencePair, Row
from learning.objectives import template


def printable_line(text: str, limit: int = 300) -> str:
    """Rows and model output as one line that no terminal obeys, of bounded length."""
    return " ".join(one_line(text).split())[:limit]


def prompt(row: Row) -> str:
    """What a causal model continues: of an instruction or a preference."""
    if isinstance(row, Instruction):
        return template.format_prompt(row.instruction, row.input)
    return template.format_prompt(cast(PreferencePair, row).prompt)


def question(row: Row) -> str:
    """What a row asks, as people read it: the prompt without its form, or the text to classify."""
    match row:
        case Instruction():
            return f"{row.instruction} {row.input}"
        case PreferencePair():
            return row.prompt
        case LabelledText():
            return row.text


def expected_answer(row: Row) -> str:
    """What the row itself answers."""
    match row:
        case Instruction():
            return row.output
        case PreferencePair():
            return row.chosen
        case LabelledText():
            return row.label

"""An instruction and its answer: what supervised fine-tuning ("sft") learns from.

In the data path: made by `learning/data/rows` from a file or a hub data set; partitioned by
`learning/data/shards`; tokenised in `learning/tokens` where a client trains.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_CHARS = 32_768
"""Longest field taken, in characters: far above any row to learn from, far below a pasted file."""


@dataclass(frozen=True)
class Instruction:
    """One task and its answer.

    Attributes:
        instruction: What to do.
        input: What to do it with; may be empty.
        output: The answer to learn.
        topic: A label to partition by, empty where the data has none.
    """

    instruction: str
    input: str
    output: str
    topic: str = ""


@dataclass(frozen=True)
class Skipped:
    """A row that was left out.

    Attributes:
        line: Its line in a JSONL, CSV or TSV file, else its place in the list or table; from 1.
        reason: Why, in a few words.
    """

    line: int
    reason: str


@dataclass(frozen=True)
class Instructions:
    """What a file held. To be removed with `read`: `learning.data.rows` has it for all kinds."""

    rows: tuple[Instruction, ...]
    skipped: tuple[Skipped, ...]


def read(path: Path) -> Instructions:
    """Reads a file of instructions. To be removed: `learning.data.rows.read("sft", path)`."""
    from learning.data import rows  # noqa: PLC0415 - it imports this file

    found = rows.read("sft", path)
    return Instructions(found.rows, found.skipped)


def write(path: Path, rows: Iterator[Instruction] | tuple[Instruction, ...]) -> None:
    """Writes rows as JSONL. To be removed: `learning.data.rows.write`."""
    from learning.data.rows import write as write_rows  # noqa: PLC0415 - it imports this file

    write_rows(path, rows)

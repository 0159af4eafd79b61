"""Rows of the three kinds that can be learned: instructions, preference pairs, labelled texts.

The first step of the data path: a file becomes frozen rows. A row that cannot be used is skipped,
counted and named by its line, because real files have such rows; a source without one usable row
is a `DataError`. Next: `learning/shards` partitions the rows over clients.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar, overload

from common.errors import DataError
from learning.instructions import Instruction, Skipped
from learning.labelled import Labelled
from learning.preferences import Preference

Kind = Literal["sft", "va", "cls"]
Row = Instruction | Preference | Labelled
R = TypeVar("R", bound=Row, covariant=True)

_LEFT_OUT_WHEN_EMPTY = ("input", "topic")


@dataclass(frozen=True)
class Rows(Generic[R]):
    """What a source held: the usable rows in its order, and what was left out."""

    rows: tuple[R, ...]
    skipped: tuple[Skipped, ...]


@overload
def read(kind: Literal["sft"], path: Path) -> Rows[Instruction]: ...
@overload
def read(kind: Literal["va"], path: Path) -> Rows[Preference]: ...
@overload
def read(kind: Literal["cls"], path: Path) -> Rows[Labelled]: ...
@overload
def read(kind: Kind, path: Path) -> Rows[Row]: ...
def read(kind: Kind, path: Path) -> Rows[Row]:
    """Reads the rows of a file.

    Raises:
        DataError: The file is missing, cannot be read, or has no usable row.
    """
    types: dict[Kind, type[Instruction | Preference | Labelled]] = {
        "sft": Instruction,
        "va": Preference,
        "cls": Labelled,
    }
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "check the path") from None
    made = (json.loads(line) for line in lines if line.strip())
    missing = {"input": ""} if kind == "sft" else {}
    return Rows(tuple(types[kind](**(missing | fields)) for fields in made), ())


def write(path: Path, rows: Iterable[Row]) -> None:
    """Writes rows as JSONL that `read` gives back unchanged; no empty input or topic."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            fields = asdict(row)
            kept = {k: v for k, v in fields.items() if v or k not in _LEFT_OUT_WHEN_EMPTY}
            file.write(json.dumps(kept, ensure_ascii=False) + "\n")

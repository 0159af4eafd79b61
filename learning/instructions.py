"""Reading instruction data: Alpaca-form JSON (one list) and JSONL (one object per line).

The first step of the data path: a file becomes frozen rows. A row that cannot be used is skipped,
counted and named by its line, because real files have such rows; a file that cannot be used at all
is a `DataError`. Next: `learning.shards` partitions the rows over clients.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.errors import DataError

MAX_CHARS = 32_768
"""Longest field taken, in characters: far above any instruction, far below a pasted file."""


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
        line: Its line in a JSONL file, or its place in a JSON list; counted from 1.
        reason: Why, in a few words.
    """

    line: int
    reason: str


@dataclass(frozen=True)
class Instructions:
    """What a file held."""

    rows: tuple[Instruction, ...]
    skipped: tuple[Skipped, ...]


def read(path: Path) -> Instructions:
    """Reads a data file, whichever of the two forms it has.

    Returns:
        The usable rows in file order, and what was skipped.

    Raises:
        DataError: The file is missing, not UTF-8, empty, or has no usable row.
    """
    text = _text(path)
    rows: list[Instruction] = []
    skipped: list[Skipped] = []
    for line, item in _items(path, text):
        parsed = item if isinstance(item, str) else _row(item)
        if isinstance(parsed, str):
            skipped.append(Skipped(line, parsed))
        else:
            rows.append(parsed)
    if not rows:
        first = f" (row {skipped[0].line}: {skipped[0].reason})" if skipped else ""
        raise DataError(
            f"{path} has no usable row{first}",
            "every row needs the text fields instruction and output, and may have input",
        )
    return Instructions(tuple(rows), tuple(skipped))


def write(path: Path, rows: Iterator[Instruction] | tuple[Instruction, ...]) -> None:
    """Writes rows as JSONL that `read` gives back unchanged; the topic only where there is one."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            fields = {"instruction": row.instruction, "input": row.input, "output": row.output}
            if row.topic:
                fields["topic"] = row.topic
            file.write(json.dumps(fields, ensure_ascii=False) + "\n")


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"data file {path} does not exist", "check the path") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text (byte {error.start})",
            "convert it to UTF-8, or check the path",
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "check the path") from None
    if not text.strip():
        raise DataError(f"data file {path} is empty", "give a file with at least one row")
    return text


def _items(path: Path, text: str) -> Iterator[tuple[int, object]]:
    """Pairs of line and parsed JSON value; a line that is no JSON comes as its reason, a string."""
    if text.lstrip().startswith("["):
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path} is no valid JSON list: {error}", "repair it, or write one object per line"
            ) from None
        yield from (
            (n, [item] if isinstance(item, str) else item) for n, item in enumerate(whole, 1)
        )
        return
    # Not str.splitlines: it also breaks at U+2028 and others, which JSON strings may hold.
    for n, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield n, _parse(line)


def _parse(line: str) -> object:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return "no valid JSON"
    return [value] if isinstance(value, str) else value


def _row(item: object) -> Instruction | str:
    """A row, or the reason why the value is none."""
    if not isinstance(item, dict):
        return "no JSON object"
    fields: dict[str, str] = {}
    for name in ("instruction", "input", "output", "topic"):
        value = item.get(name)
        if value is None:
            value = ""
        if not isinstance(value, str):
            return f"{name} is no text"
        if len(value) > MAX_CHARS:
            return f"{name} has {len(value)} characters, more than {MAX_CHARS}"
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            return f"{name} has half of a surrogate pair"  # cannot be encoded as UTF-8
        fields[name] = value
    for name in ("instruction", "output"):
        if not fields[name].strip():
            return f"{name} is empty"
    return Instruction(fields["instruction"], fields["input"], fields["output"], fields["topic"])

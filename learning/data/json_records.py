"""Records of JSON files that are not one object per line.

In the data path: called by `learning.data.tables`.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from common.errors import DataError

_OPEN = ("{", "[", ",")  # ends of the first line of an object that is written over several


def read_list(path: Path) -> list[object]:
    """Return the items of a file that is one JSON list.

    Raises:
        DataError: The file cannot be read, or is not a JSON list.
    """
    try:
        items = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not a valid JSON list: {error}", "repair it, or write one object per line"
        ) from None
    return list(items)


def is_spread(first_line: str, only: bool, names: Collection[str]) -> bool:
    """Return whether objects of a file are written over several lines, or hold the list of rows.

    Args:
        first_line: The first line of a file that begins with an object.
        only: Whether the file has no other line.
        names: Column names to use, in lower case.
    """
    try:
        value = json.loads(first_line)
    except (ValueError, RecursionError):
        return first_line.rstrip().endswith(_OPEN)
    return only and _inner_list(value, names) is not None


def read_spread(path: Path, names: Collection[str]) -> list[object]:
    """Return the objects of a file, or the items of the one list in its one object.

    Raises:
        DataError: The file cannot be read, or is not a sequence of JSON values.
    """
    text = _text(path)
    decoder, values, place = json.JSONDecoder(), [], 0
    try:
        while rest := text[place : place + 1]:
            if rest in " \t\r\n":
                place += 1
                continue
            value, place = decoder.raw_decode(text, place)
            values.append(value)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is neither JSON nor one object per line: {error}",
            "repair it, or write one object per line",
        ) from None
    inner = _inner_list(values[0], names) if len(values) == 1 else None
    return values if inner is None else inner


def _inner_list(value: object, names: Collection[str]) -> list[object] | None:
    """Return the one list of objects in an object that is no row itself."""
    if not isinstance(value, dict) or any(key.lower() in names for key in value):
        return None
    lists = [
        each
        for each in value.values()
        if isinstance(each, list) and each and all(isinstance(item, dict) for item in each)
    ]
    return lists[0] if len(lists) == 1 else None


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "check the disk") from None

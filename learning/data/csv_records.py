"""Splitting of delimited text into records, so that no line inside a cell becomes a record.

The `csv` module gives up inside of a record that it cannot read, and would go on with the next
line, which may belong to the same cell. Here a small automaton finds the end of each record first.
A record that is too long is skipped as a whole; after a quote in the wrong place the end of its
record is unknown, and nothing behind it is read.

In the data path: called by `learning.data.tables`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from enum import Enum

MAX_RECORD = 16 * 2**20
"""Characters of a record that are kept."""
BROKEN_QUOTE = "a quote that is neither doubled nor ends its cell: nothing after it is read"
UNCLOSED_QUOTE = "a quote that is never closed: nothing after it is read"
TOO_LONG = "a cell of the record is too long"
NOT_CSV = "not valid CSV"


_QUOTED = re.compile(r'[^"]*+(?:""[^"]*+)*+')


class _State(Enum):
    START = "at the start of a cell"
    PLAIN = "in a cell without quotes"
    QUOTED = "between quotes"
    QUOTE = "after a quote between quotes"
    BROKEN = "after a quote in the wrong place"


def records(lines: Iterable[tuple[str, bool]], delimiter: str) -> Iterator[tuple[int, str | None]]:
    """Yield the line on which each record begins, and its text; None for one that is too long.

    The text of the last record may be broken; see `parse`.

    Args:
        lines: Parts of lines, and whether the line ends with them.
    """
    state, text, size, number, begin = _State.START, [], 0, 1, 1
    for part, ends in lines:
        state = _advance(state, part, delimiter)
        size += len(part)
        if size <= MAX_RECORD:
            text.append(part)
        if not ends:
            continue
        number += 1
        if state is _State.BROKEN:
            break
        if state is not _State.QUOTED:
            yield begin, "".join(text) if size <= MAX_RECORD else None
            state, text, size, begin = _State.START, [], 0, number
    if size:
        unfinished = state in (_State.BROKEN, _State.QUOTED)
        yield begin, "".join(text) if unfinished or size <= MAX_RECORD else None


def parse(text: str | None, delimiter: str) -> list[str] | str:
    """Return the cells of a record, or the reason why it has none."""
    if text is None:
        return TOO_LONG
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True), [])
    except csv.Error:
        state = _advance(_State.START, text, delimiter)
    if state in (_State.BROKEN, _State.QUOTED):
        return BROKEN_QUOTE if state is _State.BROKEN else UNCLOSED_QUOTE
    return TOO_LONG if len(text) > csv.field_size_limit() else NOT_CSV


def _advance(state: _State, text: str, delimiter: str) -> _State:
    """Return the state behind a text, which may be a part of a record."""
    if '"' not in text and state is not _State.QUOTE:
        ended = text.endswith((delimiter, "\r"))
        return state if state is _State.QUOTED else _State.START if ended else _State.PLAIN
    place, size = 0, len(text)
    end_of_cell = re.compile(f"[{re.escape(delimiter)}\r]")
    while place < size and state is not _State.BROKEN:
        char = text[place]
        match state:
            case _State.QUOTED:
                place = _end_of_quoted(text, place)
                if place == size:
                    return state
                state = _State.QUOTE
            case _State.PLAIN:
                match = end_of_cell.search(text, place)
                if match is None:
                    return state
                place, state = match.end(), _State.START
                continue
            case _State.START:
                state = _after(char, delimiter)
            case _State.QUOTE:
                ends = char in f'"{delimiter}\r\n'
                state = _after(char, delimiter) if ends else _State.BROKEN
        place += 1
    return state


def _end_of_quoted(text: str, place: int) -> int:
    """Return the place of the quote that ends a cell, or the end of the text."""
    found = _QUOTED.match(text, place)
    assert found is not None, "the pattern also fits nothing"
    return found.end()


def _after(char: str, delimiter: str) -> _State:
    if char in (delimiter, "\r"):  # a cell can begin behind a return that ends a record
        return _State.START
    return _State.QUOTED if char == '"' else _State.PLAIN

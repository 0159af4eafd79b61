"""Files of records: JSON, JSONL, CSV, TSV and Parquet, read as pairs of row number and record.

`learning.data.row_parser` gives records their meaning. Input is hostile: a line that is not a
record is replaced by the reason, a file in the wrong form is a `DataError`. Bytes that are not
UTF-8 are kept as lone surrogates, so that they spoil only the field that they are in.

In the data path: called by `learning.data.rows`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from common.errors import DataError
from learning.data import csv_records
from learning.data.file_form import line_end, read_head
from learning.data.json_records import is_spread, read_list, read_spread

MAX_LINE = 16 * 2**20
"""Bytes of a line that are read: more than the longest row that can be used, in any escaping."""

RawRecord = Mapping[str, object]
NumberedRecords = Iterator[tuple[int, RawRecord | str]]
"""Row numbers, counted from 1, with a record or the reason why there is none. The number is the
line where the form has lines (JSONL, CSV, TSV), otherwise the position in the list or table.
"""

_SAMPLE = 1000  # lines that decide whether a file has a header row
_BATCH = 256  # rows of Parquet in memory together: with long texts they fit a small machine
_BLOCK = 2**20
_DELIMITERS = (",", ";", "\t", "|")
_Fields = tuple[int, list[str] | str]


@dataclass(frozen=True)
class ColumnTable:
    """An open source of records."""

    columns: tuple[str, ...] | None  # of every record; None where each has its own (JSON)
    records: NumberedRecords  # can be iterated once


def open_table(
    path: Path, names: Collection[str], pair: tuple[str, str] | None = None
) -> ColumnTable:
    """Open a file of records; its form follows from its suffix, and is JSON for any other suffix.

    A CSV file may be delimited by semicolons, tabs or bars, if its header shows it. A JSON file may
    be one object with the list of rows, or objects that are written over several lines. A CSV or
    TSV file has a header row, with one exception for data such as SST-2. In a file of two
    columns, neither of them named in `names`, the column with fewer different values (with fewer
    characters, if equal) is the label; if the label in the first line is a whole number or occurs
    again below, that line is data. In TSV, quotes are ordinary characters, as in SST-2.

    Args:
        names: Column names to use, in lower case; only these are read from Parquet.
        pair: Names for the text and the label of a file without a header row; None if such a file
            is not expected.

    Raises:
        DataError: The file is missing, empty, or not of its form; also while iterating.
    """
    head = read_head(path)
    match path.suffix.lower():
        case ".parquet":
            return _parquet(path, names)
        case ".csv":
            return _delimited(path, _csv_rows(path, line_end(head), names), names, pair)
        case ".tsv":
            return _delimited(path, _tsv_rows(path, line_end(head)), names, pair)
    return _json_table(path, head, names)


def with_class_names(record: RawRecord, classes: Mapping[str, Sequence[str]]) -> RawRecord:
    """Return a record with class numbers replaced by names; a number out of range becomes None."""
    return {
        column: _class_name(value, classes[column]) if column in classes else value
        for column, value in record.items()
    }


def _class_name(value: object, names: Sequence[str]) -> object:
    if not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None


def _parts(path: Path, end: bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield lines with their ends, in parts of at most `MAX_LINE`, and whether a line is complete.

    No universal newlines, since texts may hold U+2028 and the like.
    """
    try:
        with path.open("rb") as file:
            if end == b"\n":
                while raw := file.readline(MAX_LINE):
                    yield raw, len(raw) < MAX_LINE or raw.endswith(end)
                return
            rest = b""
            while block := file.read(_BLOCK):
                *lines, rest = (rest + block).split(end)
                yield from ((line + b"\n", True) for line in lines)
                if len(rest) >= MAX_LINE:
                    yield rest, False
                    rest = b""
            if rest:
                yield rest, True
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "check the disk") from None


def _text_parts(path: Path, end: bytes) -> Iterator[tuple[str, bool]]:
    encoding = "utf-8-sig"  # only the first line can begin with a byte order mark
    for raw, complete in _parts(path, end):
        yield raw.decode(encoding, errors="surrogateescape"), complete
        encoding = "utf-8"


def _lines(path: Path, end: bytes) -> Iterator[str]:
    """Yield lines with their ends; the remainder of a line over `MAX_LINE` is left out.

    What is left is not a usable row in any form.
    """
    begins = True
    for part, complete in _text_parts(path, end):
        if begins:
            yield part
        begins = complete


def _json_lines(lines: Iterable[str]) -> NumberedRecords:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                yield number, "not valid JSON"
            else:
                yield number, value if isinstance(value, dict) else "not a JSON object"


def _items(items: Iterable[object]) -> NumberedRecords:
    for number, item in enumerate(items, 1):
        yield number, item if isinstance(item, dict) else "not a JSON object"


def _json_table(path: Path, head: bytes, names: Collection[str]) -> ColumnTable:
    if head.lstrip().startswith(b"["):
        return ColumnTable(None, _items(read_list(path)))
    lines = _lines(path, line_end(head))
    first = list(islice((line for line in lines if line.strip()), 2))
    if first and first[0].lstrip().startswith("{") and is_spread(first[0], len(first) == 1, names):
        return ColumnTable(None, _items(read_spread(path, names)))
    return ColumnTable(None, _json_lines(_lines(path, line_end(head))))


def _tsv_rows(path: Path, end: bytes) -> Iterator[_Fields]:
    for number, line in enumerate(_lines(path, end), 1):
        if line.strip():
            yield number, line.rstrip("\r\n").split("\t")


def _csv_rows(path: Path, end: bytes, names: Collection[str]) -> Iterator[_Fields]:
    first = next(_lines(path, end), "")
    delimiter = _named_delimiter(first) or _delimiter(first, names)
    for number, text in csv_records.records(_text_parts(path, end), delimiter):
        if number == 1 and _named_delimiter(first):
            continue
        fields = csv_records.parse(text, delimiter)
        if isinstance(fields, str) or any(field.strip() for field in fields):
            yield number, fields


def _named_delimiter(line: str) -> str:
    """Return the delimiter that the first line of a file for Excel names; empty if it names none.

    Excel writes `sep=;`.
    """
    found = re.fullmatch(r"sep=([;,|\t])[\r\n]*", line, re.IGNORECASE)
    return found[1] if found else ""


def _delimiter(header: str, names: Collection[str]) -> str:
    """Return another delimiter than the comma if only it makes the first line a known header."""
    for delimiter in _DELIMITERS:
        cells = csv_records.parse(header, delimiter)
        several = isinstance(cells, list) and len(cells) > 1
        if several and any(cell.strip().lower() in names for cell in cells):
            return delimiter
    return ","


def _delimited(
    path: Path, rows: Iterator[_Fields], names: Collection[str], pair: tuple[str, str] | None
) -> ColumnTable:
    sample = list(islice(rows, _SAMPLE))
    first = sample[0][1] if sample else ""
    if isinstance(first, str):
        raise DataError(f"{path} has no readable header line", "repair its first line")
    if pair is not None and (label := _label_without_header(sample, names)) is not None:
        columns = pair if label == 1 else pair[::-1]
        return ColumnTable(columns, _records(columns, chain(sample, rows)))
    header = tuple(field.strip() for field in first)
    if len(set(header)) < len(header):
        raise DataError(f"{path} names a column twice in its header line", "rename one of them")
    return ColumnTable(header, _records(header, chain(sample[1:], rows)))


def _label_without_header(sample: Sequence[_Fields], names: Collection[str]) -> int | None:
    """Return which of two columns holds the label if the first line is data; see `open_table`."""
    pairs = [fields for _, fields in sample if isinstance(fields, list) and len(fields) == 2]
    first = sample[0][1]
    if len(first) != 2 or any(cell.strip().lower() in names for cell in first):
        return None

    def variety(column: int) -> tuple[int, int]:
        cells = [pair[column] for pair in pairs]
        return len(set(cells)), sum(map(len, cells))

    label = min((1, 0), key=variety)
    value = first[label]
    repeated = any(pair[label] == value for pair in pairs[1:])
    return label if repeated or value.strip().removeprefix("-").isdecimal() else None


def _records(columns: tuple[str, ...], rows: Iterator[_Fields]) -> NumberedRecords:
    for number, fields in rows:
        if isinstance(fields, str):
            yield number, fields
        elif len(fields) != len(columns):
            yield number, f"{len(fields)} fields where there are {len(columns)} columns"
        elif any("\0" in field for field in fields):  # UTF-16 without a mark, or no text at all
            yield number, "NUL characters"
        else:
            yield number, dict(zip(columns, fields, strict=True))


def _parquet(path: Path, names: Collection[str]) -> ColumnTable:
    import pyarrow  # noqa: PLC0415 - tens of MB that a worker with JSONL files does without
    import pyarrow.parquet  # noqa: PLC0415

    try:
        file = pyarrow.parquet.ParquetFile(path)
        columns = tuple(file.schema_arrow.names)
        classes = _class_names((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
    except (pyarrow.ArrowException, OSError, ValueError):
        raise _damaged(path) from None
    used = [name for name in columns if name.lower() in names]

    def records() -> NumberedRecords:
        number = 0
        try:
            for batch in file.iter_batches(batch_size=_BATCH, columns=used):
                for i in range(batch.num_rows):
                    number += 1
                    try:
                        (record,) = batch.slice(i, 1).to_pylist()
                    except ValueError:  # Arrow does not check that its strings are UTF-8
                        yield number, "not valid UTF-8 text"
                    else:
                        yield number, with_class_names(record, classes)
        except (pyarrow.ArrowException, OSError):
            raise _damaged(path) from None

    return ColumnTable(columns, records())


def _damaged(path: Path) -> DataError:
    return DataError(f"{path} is not a Parquet file, or is damaged", "check it, or fetch it again")


def _class_names(metadata: bytes) -> dict[str, list[str]]:
    """Return names of class numbers by column, which `datasets` writes into its files."""
    try:
        features = json.loads(metadata)["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return {}

"""Reading and writing of rows: instructions, conversations, judged answers, labelled texts.

The first step of the data path: a file or a hub data set becomes frozen rows. Real data has rows
that cannot be used, or only in part; they are reported by number and reason. A source without one
usable row is a `DataError`. Rows are private: no message contains their text. Next:
`learning.data.shards` partitions the rows over clients and writes files that `read` reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Generic, Literal, TypeVar, overload

from common.errors import ConfigError, DataError
from common.files import private_opener
from common.protocol.fields import RowKind
from common.text import is_one_line
from learning.data import hub_data, preference_parser, rating_parser, row_parser, tables
from learning.data.field_values import OnOmission, UnusableRow
from learning.data.message_parser import messages_to_json
from learning.data.row_types import (
    Conversation,
    Instruction,
    LabelledText,
    PreferencePair,
    RatedAnswer,
    Row,
)
from learning.data.tables import ColumnTable, RawRecord


class NoUsableRow(DataError):
    """A source has no row of a kind.

    Attributes:
        first: The first skipped row, with its reason; empty if there is none.
        columns: Columns that were found in the source.
    """

    def __init__(self, what: str, remedy: str, first: str, columns: tuple[str, ...]) -> None:
        super().__init__(what, remedy)
        self.first, self.columns = first, columns


R_co = TypeVar("R_co", bound=Row, covariant=True)

_REQUIRED_FIELDS: Mapping[RowKind, str] = {
    "sft": "every row needs the text fields instruction and output, or messages",
    "va": "every row needs prompt, chosen and rejected, as texts or as messages",
    "kto": "every row needs prompt, completion and label (true or false); or prompt, chosen and"
    " rejected",
    "cls": "every row needs the fields text and label",
}
_SPLITS: Mapping[RowKind, tuple[str, ...]] = {
    "sft": ("train", "train_sft"),
    "va": ("train", "train_prefs"),
    "kto": ("train", "train_prefs"),
    "cls": ("train",),
}
_HEADERLESS_COLUMNS: Mapping[RowKind, tuple[str, str]] = {"cls": ("text", "label")}
_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
_OMITTED_WHEN_EMPTY = ("input", "topic", "tools")
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class SkippedRow:
    """A row that was left out."""

    line: int  # from 1; the position, where the source has no lines
    reason: str


@dataclass(frozen=True)
class Omission:
    """A part of a row that was left out, while the row is used."""

    place: int  # of the row in `LoadedRows.rows`
    line: int  # as in `SkippedRow`
    reason: str  # what was left out


@dataclass(frozen=True)
class LoadedRows(Generic[R_co]):
    """Content of a source: the usable rows in their order, and what was left out."""

    rows: tuple[R_co, ...]
    skipped: tuple[SkippedRow, ...]
    omissions: tuple[Omission, ...] = ()
    pairs: int = 0  # records that were preference pairs, each of which became two ratings


@overload
def read(kind: Literal["sft"], path: Path) -> LoadedRows[Instruction | Conversation]: ...
@overload
def read(kind: Literal["va"], path: Path) -> LoadedRows[PreferencePair]: ...
@overload
def read(kind: Literal["kto"], path: Path) -> LoadedRows[RatedAnswer]: ...
@overload
def read(kind: Literal["cls"], path: Path) -> LoadedRows[LabelledText]: ...
@overload
def read(kind: RowKind, path: Path) -> LoadedRows[Row]: ...
def read(kind: RowKind, path: Path) -> LoadedRows[Row]:
    """Read the rows of a file that `write` wrote, or of any form that `load` takes.

    Raises:
        DataError: The file is missing, cannot be read, or has no usable row.
    """
    table = tables.open_table(
        path, row_parser.known_columns(kind, _NOTHING), _HEADERLESS_COLUMNS.get(kind)
    )
    loaded = _rows(kind, table, _NOTHING, ())
    if not loaded.rows:
        raise _no_row(kind, str(path), loaded.skipped)
    return loaded


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSONL that `read` returns unchanged, without fields that may be empty."""
    with open(path, "w", encoding="utf-8", opener=private_opener) as file:
        for row in rows:
            file.write(json.dumps(to_json(row), ensure_ascii=False) + "\n")


def to_json(row: Row) -> dict[str, object]:
    """Return the JSON object of a row, without fields that may be empty."""
    fields: dict[str, object] = asdict(row)
    match row:
        case Conversation():
            fields["messages"] = messages_to_json(row.messages)
        case PreferencePair(prompt=tuple(turns)) | RatedAnswer(prompt=tuple(turns)):
            fields["prompt"] = messages_to_json(turns)
    if isinstance(row, RatedAnswer):
        fields["label"] = fields.pop("good")
    return {k: v for k, v in fields.items() if v or k not in _OMITTED_WHEN_EMPTY}


def load(
    kind: RowKind,
    source: str,
    columns: Mapping[str, str] = _NOTHING,
    labels: Sequence[str] = (),
    *,
    on_message: Callable[[str], None],
    fetch: hub_data.FetchDataset = hub_data.fetch,
) -> LoadedRows[Row]:
    """Load the rows of a source as its owner names it.

    Args:
        source: A path (JSON, JSONL, CSV, TSV or Parquet), or a hub data set in the form
            `hub_data.SOURCE_SYNTAX`. A file takes precedence over a data set of the same name.
            Without a split, the training split is taken.
        columns: Fields of a row to columns of the source, where
            `learning.data.row_parser.COLUMN_NAMES` does not find them.
        labels: The declared classes, for kind cls: rows of others are skipped; empty for any.
        on_message: Called with a line of text before a step that takes time.

    Raises:
        ConfigError: `columns` names a field or a column that does not exist.
        DataError: The source is missing, cannot be read or reached, or has no usable row.
    """
    for field in columns:
        if field not in row_parser.COLUMN_NAMES[kind]:
            raise ConfigError(
                f"columns names {field!r}, which is not a field of a {kind} row",
                f"its fields are {', '.join(row_parser.COLUMN_NAMES[kind])}",
            )
    table = _open(kind, source, row_parser.known_columns(kind, columns), on_message, fetch)
    if table.columns is not None:
        _check_columns(source, columns, table.columns)
    seen: dict[str, None] = dict.fromkeys(table.columns or ())
    loaded = _rows(kind, table, columns, labels, seen)
    _check_columns(source, columns, seen)
    if not loaded.rows:
        declared = f"; data.labels are {list_names(labels)}" if labels else ""
        raise _no_row(kind, source, loaded.skipped, tuple(seen), declared)
    return loaded


def on_hub(source: str) -> hub_data.HubSource | None:
    """Return the hub data set that a source names; None for a file, which takes precedence."""
    path = Path(source)
    named = None if path.suffix.lower() in _SUFFIXES else hub_data.parse_source(source)
    return None if path.exists() else named


def _open(
    kind: RowKind,
    source: str,
    names: frozenset[str],
    on_message: Callable[[str], None],
    fetch: hub_data.FetchDataset,
) -> ColumnTable:
    dataset = on_hub(source)
    if dataset is None:
        return tables.open_table(Path(source), names, _HEADERLESS_COLUMNS.get(kind))
    return hub_data.as_table(fetch(dataset, _SPLITS[kind], on_message), source, names)


def _rows(
    kind: RowKind,
    table: ColumnTable,
    columns: Mapping[str, str],
    labels: Sequence[str],
    seen: dict[str, None] | None = None,
) -> LoadedRows[Row]:
    """Return the rows of a table; add the names of the columns of its records to `seen`."""
    rows: list[Row] = []
    skipped: list[SkippedRow] = []
    omissions: list[Omission] = []
    pairs = 0
    for line, record in table.records:
        if isinstance(record, str):
            skipped.append(SkippedRow(line, record))
            continue
        if seen is not None:
            seen.update(dict.fromkeys(record))
        left_out: dict[str, None] = {}
        try:
            found = _parse(kind, record, columns, labels, left_out.setdefault)
        except UnusableRow as reason:
            skipped.append(SkippedRow(line, str(reason)))
        else:
            omissions += [Omission(len(rows), line, reason) for reason in left_out]
            rows += found
            pairs += len(found) > 1
    return LoadedRows(tuple(rows), tuple(skipped), tuple(omissions), pairs)


def _parse(
    kind: RowKind,
    record: RawRecord,
    columns: Mapping[str, str],
    labels: Sequence[str],
    on_omission: OnOmission,
) -> tuple[Row, ...]:
    """Return the row of a record; a preference pair gives two of kind `kto`."""
    match kind:
        case "sft":
            return (row_parser.parse_instruction(record, columns, on_omission),)
        case "va":
            return (preference_parser.parse_preference(record, columns, on_omission),)
        case "kto":
            return rating_parser.parse_ratings(record, columns, on_omission)
        case "cls":
            return (row_parser.parse_labelled_text(record, columns, labels),)


def _check_columns(source: str, columns: Mapping[str, str], present: Iterable[str]) -> None:
    present = tuple(present)
    for field, column in columns.items():
        if present and column not in present:
            raise ConfigError(
                f"{source} has no column {column!r}, which columns names for {field}",
                f"its columns are {list_names(present)}",
            )


def _no_row(
    kind: RowKind,
    source: str,
    skipped: Sequence[SkippedRow],
    columns: tuple[str, ...] = (),
    declared: str = "",
) -> NoUsableRow:
    first = f"row {skipped[0].line}: {skipped[0].reason}" if skipped else ""
    if skipped and "UTF-8" in skipped[0].reason:
        declared = f"; text of Windows is converted by iconv -f WINDOWS-1252 -t UTF-8{declared}"
    present = f"; its columns are {list_names(columns)}" if columns else ""
    remedy = f"{_REQUIRED_FIELDS[kind]}{present}{declared}"
    what = f"{source} has no usable row ({first})" if first else f"{source} has no usable row"
    return NoUsableRow(what, remedy, first, columns)


def list_names(columns: Iterable[str]) -> str:
    """Return names on one line; a header line can be anything, even the first row of a text."""
    names = [name if len(name) <= 30 else f"{name[:27]}..." for name in islice(columns, 20)]
    return ", ".join(name if is_one_line(name) else ascii(name) for name in names)

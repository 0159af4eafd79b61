"""Import of an invited site's rows from any file into the form that tasks are trained on.

`--data` names files (JSON, JSONL, CSV, TSV, Parquet) or a directory of client files. Several files
together are one client, called like the site; the clients of a directory are called SITE.NAME. The
copies are stored beside the identity, on this machine only. Everything is checked here, before the
network is used: what cannot be learned from is named by line and counted by reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import get_args

from filelock import FileLock

from common.errors import ConfigError, DataError
from common.files import make_private
from common.protocol.fields import RowKind
from learning.data import rows
from learning.data.omissions import count_reasons, print_omissions
from learning.data.row_parser import COLUMN_NAMES
from learning.data.row_types import Row
from learning.data.rows import LoadedRows, NoUsableRow
from worker.data.expected_rows import (
    ANY_ROWS,
    ExpectedRows,
    check_kinds,
    check_sides,
    keep_known_labels,
)

PrintLine = Callable[[str], None]
HELDOUT = "heldout"
"""Name of the file of rows that belong to no client."""
_NO_COLUMNS: Mapping[str, str] = MappingProxyType({})
_COLUMNS_REMEDY = "--columns FIELD=COLUMN,… names columns of other names"


def import_rows(
    sources: Sequence[Path],
    site: str,
    out: Path,
    print_line: PrintLine,
    columns: Mapping[str, str] = _NO_COLUMNS,
    expected: ExpectedRows = ANY_ROWS,
) -> Path:
    """Import the rows of an invited site, and return the directory of client files to serve.

    `sources` are the values of `--data`. Without any, the rows that were imported before are
    served; a single directory is served as it is; otherwise copies are written to `out`.

    Args:
        columns: Fields of a row to columns of the files, where they have other names.
        expected: What the run learns from.

    Raises:
        ConfigError: `columns` names a field or a column that does not exist.
        DataError: There are no rows, none can be used, they are of the wrong kind or too few, or
            they cannot be written.
    """
    _check_fields(columns)
    directory = sources[0] if len(sources) == 1 and sources[0].is_dir() else out
    if directory is not out or (not sources and any(out.glob("*.jsonl"))):
        if columns:
            raise ConfigError("--columns has no file to read", "name files with --data")
        check_directory(directory, site, expected, print_line)
        return directory
    if not sources:
        raise DataError(f"site {site} has no rows yet", "name a file with --data")
    by_kind = _read_files(sources, print_line, columns, expected)
    check_sides(f"site {site}", by_kind, expected)
    _report_missing(site, by_kind, expected, print_line)
    _write(out, site, by_kind)
    return out


def parse_columns(words: Sequence[str]) -> dict[str, str]:
    """Return the columns of `--columns FIELD=COLUMN,FIELD=COLUMN`, which may be repeated.

    Raises:
        ConfigError: A part is not of that form, or a field is unknown or named twice.
    """
    columns: dict[str, str] = {}
    for part in (part for word in words for part in word.split(",")):
        field, equals, column = (side.strip() for side in part.partition("="))
        if not (field and equals and column):
            raise ConfigError(
                f"--columns {part.strip()[:60]!r} is not FIELD=COLUMN",
                "write e.g. --columns instruction=question,output=answer",
            )
        if field in columns:
            raise ConfigError(f"--columns names {field} twice", "name each field once")
        columns[field] = column
    _check_fields(columns)
    return columns


def check_directory(
    directory: Path, site: str, expected: ExpectedRows, print_line: PrintLine
) -> None:
    """Check the rows of every client in a directory of client files.

    Raises:
        DataError: There are no rows, or a client's rows are unusable, of the wrong kind or too few.
    """
    clients: dict[str, dict[RowKind, Sequence[Row]]] = {}
    for kind in get_args(RowKind):
        suffix = f"_{kind}.jsonl"
        for path in sorted(directory.glob(f"*{suffix}")):
            name = path.name.removesuffix(suffix)
            if name == HELDOUT:
                continue
            loaded = rows.read(kind, path)
            print_omissions(str(path), loaded, print_line)
            kept = keep_known_labels(str(path), loaded.rows, expected, print_line)
            clients.setdefault(name, {})[kind] = kept
    if not clients:
        raise DataError(
            f"{directory} holds no client's rows",
            "its files are called NAME_sft.jsonl (or _va, _kto, _cls); or name files with --data",
        )
    for name, found in clients.items():
        client = name if name == site else f"{site}.{name}"
        check_kinds(f"{directory}: {client}", found, expected, "name other rows with --data")
        check_sides(client, found, expected)
        _report_missing(client, found, expected, print_line)


def _check_fields(columns: Mapping[str, str]) -> None:
    known = dict.fromkeys(field for fields in COLUMN_NAMES.values() for field in fields)
    for field in columns:
        if field not in known:
            raise ConfigError(
                f"--columns names {field!r}, which is not a field of a row",
                f"the fields are {', '.join(known)}",
            )


def _read_files(
    sources: Sequence[Path],
    print_line: PrintLine,
    columns: Mapping[str, str],
    expected: ExpectedRows,
) -> dict[RowKind, list[Row]]:
    """Return the rows of all files together, by kind."""
    by_kind: dict[RowKind, list[Row]] = {}
    for source in sources:
        found = _read_file(source, columns, expected)
        check_kinds(
            str(source),
            {kind: loaded.rows for kind, loaded in found.items()},
            expected,
            f"name a file with such rows; {_COLUMNS_REMEDY}; if the run's plan has changed, ask its"
            " coordinator for a new token",
        )
        for kind, loaded in found.items():
            if not expected.kinds or kind in expected.kinds:
                print_omissions(str(source), loaded, print_line)
            kept = keep_known_labels(str(source), loaded.rows, expected, print_line)
            by_kind.setdefault(kind, []).extend(kept)
            print_line(_summary(source, kind, loaded))
    return by_kind


def _read_file(
    source: Path, columns: Mapping[str, str], expected: ExpectedRows
) -> dict[RowKind, LoadedRows[Row]]:
    if source.is_dir():
        raise DataError(f"{source} is a directory", "name one directory, or files, with --data")
    if not source.is_file():
        raise DataError(f"data file {source} does not exist", "check --data")
    by_kind: dict[RowKind, LoadedRows[Row]] = {}
    errors: dict[RowKind, DataError] = {}
    for kind in get_args(RowKind):
        own = {field: name for field, name in columns.items() if field in COLUMN_NAMES[kind]}
        try:
            by_kind[kind] = rows.load(kind, str(source), own, on_message=lambda line: None)
        except DataError as error:
            errors[kind] = error
    if _is_rated(by_kind):
        del by_kind["sft"]
    if not by_kind:
        raise _unusable(source, errors, expected)
    return by_kind


def _unusable(
    source: Path, errors: Mapping[RowKind, DataError], expected: ExpectedRows
) -> DataError:
    """Return the error for a file without any row that can be learned from."""
    first = errors[expected.kinds[0] if expected.kinds else "sft"]
    if not isinstance(first, NoUsableRow):
        return first
    present = f"; its columns are {rows.list_names(first.columns)}" if first.columns else ""
    needed = (
        f"the run learns from {expected.describe()}"
        if expected.kinds
        else "give instruction and output; messages; prompt, chosen and rejected; prompt,"
        " completion and label; or text and label"
    )
    why = f" ({first.first})" if first.first else ""
    return DataError(
        f"{source} has no row that can be learned from{why}",
        f"{needed}{present}; {_COLUMNS_REMEDY}",
    )


def _is_rated(by_kind: Mapping[RowKind, LoadedRows[Row]]) -> bool:
    """Return whether most instructions are rated, so that bad answers would be learned."""
    if "sft" not in by_kind or "kto" not in by_kind:
        return False
    rated = len(by_kind["kto"].rows) - 2 * by_kind["kto"].pairs
    return 2 * rated > len(by_kind["sft"].rows)


def _summary(source: Path, kind: RowKind, loaded: LoadedRows[Row]) -> str:
    reasons = count_reasons(loaded.skipped).most_common()
    skipped = "".join(f"; {count} skipped: {reason}" for reason, count in reasons)
    places = {part.place for part in loaded.omissions}
    left_out = ", ".join(dict.fromkeys(part.reason for part in loaded.omissions))
    partly = f"; {len(places)} used in part ({left_out})" if places else ""
    pairs = f", of {loaded.pairs} pairs" if loaded.pairs else ""
    return f"{source}: {len(loaded.rows)} {kind} rows{pairs}{skipped}{partly}"


def _report_missing(
    client: str,
    found: Mapping[RowKind, Sequence[Row]],
    expected: ExpectedRows,
    print_line: PrintLine,
) -> None:
    """Print which kinds of the run a client lacks: it takes no part in their phases."""
    if missing := [kind for kind in expected.kinds if not found.get(kind)]:
        print_line(f"{client} has no {' or '.join(missing)} rows: it sits out those phases")


def _write(out: Path, site: str, by_kind: Mapping[RowKind, Sequence[Row]]) -> None:
    try:
        make_private(out)
        with FileLock(
            out.with_name(f".{out.name}.lock")
        ):  # workers of a site may start at the same moment
            for old in out.glob("*.jsonl"):
                old.unlink()
            for kind, some in by_kind.items():
                rows.write(out / f"{site}_{kind}.jsonl", some)
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error.strerror})", "make room there") from None

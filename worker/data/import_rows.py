"""Import of an invited site's rows from any file into the form that tasks are trained on.

`--data` names files (JSON, JSONL, CSV, TSV, Parquet) or a directory of client files. Several files
together are one client, called like the site; the clients of a directory are called SITE.NAME. The
copies are stored beside the identity, on this machine only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from common.errors import DataError, FcclError
from common.protocol.fields import RowKind
from learning.data import rows
from learning.data.row_types import Row


def import_rows(
    sources: Sequence[Path], site: str, out: Path, print_line: Callable[[str], None]
) -> Path:
    """Import rows, and return the directory of client files to serve.

    Args:
        sources: Values of `--data`; without any, the rows that were imported before are served.
        site: The invited site to which the rows belong.
        out: Folder for the copies, unless a directory is served as it is.
        print_line: Called with a line about what was read.

    Raises:
        DataError: There are no rows, none can be used, or they cannot be written.
    """
    if len(sources) == 1 and sources[0].is_dir():
        return sources[0]
    if not sources and any(out.glob("*.jsonl")):
        return out
    if not sources:
        raise DataError(f"site {site} has no rows yet", "name a file with --data")
    found: dict[RowKind, list[Row]] = {}
    for source in sources:
        for kind, some in _read(source, print_line).items():
            found.setdefault(kind, []).extend(some)
    try:
        out.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in out.glob("*.jsonl"):
            old.unlink()
        for kind, some in found.items():
            rows.write(out / f"{site}_{kind}.jsonl", some)
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error.strerror})", "make room there") from None
    return out


def _read(source: Path, print_line: Callable[[str], None]) -> dict[RowKind, Sequence[Row]]:
    """Return the rows of one file, of every kind that it holds."""
    if source.is_dir():
        raise DataError(f"{source} is a directory", "name one directory, or files, with --data")
    if not source.is_file():
        raise DataError(f"data file {source} does not exist", "check --data")
    found: dict[RowKind, Sequence[Row]] = {}
    why: FcclError | None = None
    for kind in get_args(RowKind):
        with contextlib.suppress(DataError):
            loaded = rows.load(kind, str(source), on_message=lambda line: None)
            found[kind] = loaded.rows
            left = f", {len(loaded.skipped)} skipped" if loaded.skipped else ""
            print_line(f"{source}: {len(loaded.rows)} {kind} rows{left}")
    if not found:
        for kind in get_args(RowKind):
            try:
                rows.load(kind, str(source), on_message=lambda line: None)
            except DataError as error:
                why = why or error
        raise DataError(
            f"{source} has no row that can be learned from ({why.what if why else 'no rows'})",
            "rows need instruction and output; or prompt, chosen and rejected; or text and label",
        )
    return found

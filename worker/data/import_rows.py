"""Import of an invited site's rows from any file into the form that tasks are trained on.

`--data` names files (JSON, JSONL, CSV, TSV, Parquet) or a directory of client files. Several files
together are one client, called like the site; the clients of a directory are called SITE.NAME. The
copies are stored beside the identity, on this machine only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_args

from common.errors import DataError
from common.protocol.fields import RowKind
from learning.data import rows
from learning.data.row_types import Row
from learning.data.rows import LoadedRows


def import_rows(
    sources: Sequence[Path], site: str, out: Path, print_line: Callable[[str], None]
) -> Path:
    """Import the rows of an invited site, and return the directory of client files to serve.

    `sources` are the values of `--data`. Without any, the rows that were imported before are
    served; a single directory is served as it is; otherwise copies are written to `out`.

    Raises:
        DataError: There are no rows, none can be used, or they cannot be written.
    """
    if len(sources) == 1 and sources[0].is_dir():
        return sources[0]
    if not sources and any(out.glob("*.jsonl")):
        return out
    if not sources:
        raise DataError(f"site {site} has no rows yet", "name a file with --data")
    by_kind: dict[RowKind, list[Row]] = {}
    for source in sources:
        for kind, some in _read(source, print_line).items():
            by_kind.setdefault(kind, []).extend(some)
    try:
        out.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in out.glob("*.jsonl"):
            old.unlink()
        for kind, some in by_kind.items():
            rows.write(out / f"{site}_{kind}.jsonl", some)
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error.strerror})", "make room there") from None
    return out


def _read(source: Path, print_line: Callable[[str], None]) -> dict[RowKind, Sequence[Row]]:
    if source.is_dir():
        raise DataError(f"{source} is a directory", "name one directory, or files, with --data")
    if not source.is_file():
        raise DataError(f"data file {source} does not exist", "check --data")
    by_kind: dict[RowKind, LoadedRows[Row]] = {}
    errors: list[str] = []
    for kind in get_args(RowKind):
        try:
            by_kind[kind] = rows.load(kind, str(source), on_message=lambda line: None)
        except DataError as error:
            errors.append(error.what)
    if _is_rated(by_kind):
        del by_kind["sft"]
    for kind, loaded in by_kind.items():
        skipped = f", {len(loaded.skipped)} skipped" if loaded.skipped else ""
        places = {part.place for part in loaded.omissions}
        reasons = ", ".join(dict.fromkeys(part.reason for part in loaded.omissions))
        partly = f", {len(places)} used in part ({reasons})" if places else ""
        pairs = f", of {loaded.pairs} pairs" if loaded.pairs else ""
        print_line(f"{source}: {len(loaded.rows)} {kind} rows{pairs}{skipped}{partly}")
    if not by_kind:
        raise DataError(
            f"{source} has no row that can be learned from ({errors[0]})",
            "give instruction and output; messages; prompt, chosen and rejected; prompt, completion"
            " and label; or text and label",
        )
    return {kind: loaded.rows for kind, loaded in by_kind.items()}


def _is_rated(by_kind: Mapping[RowKind, LoadedRows[Row]]) -> bool:
    """Return whether most instructions are rated, so that bad answers would be learned."""
    if "sft" not in by_kind or "kto" not in by_kind:
        return False
    rated = len(by_kind["kto"].rows) - 2 * by_kind["kto"].pairs
    return 2 * rated > len(by_kind["sft"].rows)

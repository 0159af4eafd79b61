"""A folder of prepared data: its files, the number of rows in each, and its manifest.

Each client has one `client_<i>_<kind>.jsonl` per kind, which only that client reads; each kind has
one `heldout_<kind>.jsonl`, which no client reads. A run whose rows all stay at the sites has the
held-out files alone, if it has any. The manifest is written last: a folder without
one was never finished and is prepared again.

Data path: `learning.data.shards` writes the folder; the coordinator's preparation, workers and
evaluations load its manifest here. Next: `learning.data.rows` reads the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.errors import DataError
from common.files import write_durable
from common.protocol.fields import RowKind
from learning.data.skew_report import LabelCounts, plot_skew, skew_table

MANIFEST = "manifest.json"
"""Name of the file that records where each row went, and with which settings."""
KIND_NAMES: Mapping[RowKind, str] = {
    "sft": "instructions",
    "va": "preferences",
    "kto": "rated answers",
    "cls": "labelled texts",
}
"""Names of the kinds in messages."""
_NAMED = 8  # clients that a message names


@dataclass(frozen=True)
class Shard:
    """One client's rows of one kind."""

    client_id: str
    kind: RowKind
    path: Path  # all its rows; `learning.data.splits.split_rows` divides them
    rows: int
    train_rows: int
    validation_rows: int
    holdout_rows: int
    topics: dict[str, int]  # number of rows by label
    good: int | None = None  # number of answers rated good; None for other kinds


@dataclass(frozen=True)
class PreparedData:
    """Content of a folder of prepared data."""

    folder: Path
    shards: tuple[Shard, ...]  # ordered by kind, then by client
    heldout: Mapping[RowKind, Path]  # held-out file of each kind
    heldout_rows: Mapping[RowKind, int]
    settings: dict[str, Any]  # arguments of `shards.prepare_shards`, and digests of the rows

    def rows(self) -> dict[str, dict[RowKind, int]]:
        """Return the number of training rows by client id and kind."""
        counts: dict[str, dict[RowKind, int]] = {}
        for shard in self.shards:
            counts.setdefault(shard.client_id, {})[shard.kind] = shard.train_rows
        return counts


def load(folder: Path) -> PreparedData:
    """Load the manifest that `save` wrote.

    Raises:
        DataError: There is no manifest, or it is damaged.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        shards = tuple(
            Shard(**{**shard, "kind": _kind(shard["kind"]), "path": folder / shard["path"]})
            for shard in manifest["shards"]
        )
        return PreparedData(
            folder=folder,
            shards=shards,
            heldout={_kind(kind): folder / name for kind, name in manifest["heldout"].items()},
            heldout_rows={_kind(kind): n for kind, n in manifest["heldout_rows"].items()},
            settings=manifest["settings"],
        )
    except FileNotFoundError:
        raise DataError(f"{folder} holds no prepared data", "run fccl prepare") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path} is damaged: {error!r}", "remove the folder and prepare it again"
        ) from None


def _kind(name: str) -> RowKind:
    for kind in KIND_NAMES:
        if name == kind:
            return kind
    raise ValueError(f"{name!r} is not a kind of row")


def save(prepared: PreparedData) -> None:
    """Write the skew as tables and pictures and, after everything else, the manifest."""
    for kind in prepared.heldout:
        file = prepared.folder / f"skew_{kind}.png"
        plot_skew(_label_counts(prepared, kind), _title(kind), file)
    (prepared.folder / "skew.txt").write_text(skew_tables(prepared), encoding="utf-8")
    save_manifest(prepared)


def save_manifest(prepared: PreparedData) -> None:
    """Write the manifest alone, of a folder whose other files are written."""
    manifest = {
        "settings": prepared.settings,
        "heldout": {kind: path.name for kind, path in prepared.heldout.items()},
        "heldout_rows": prepared.heldout_rows,
        "shards": [{**asdict(shard), "path": shard.path.name} for shard in prepared.shards],
    }
    write_durable(prepared.folder / MANIFEST, json.dumps(manifest, indent=1).encode())


def check_files(prepared: PreparedData) -> None:
    """Check that no file of rows was lost, cut or edited since the folder was prepared.

    Raises:
        DataError: A file is missing, or its number of rows differs from the manifest.
    """
    files = {shard.path: shard.rows for shard in prepared.shards}
    files |= {path: prepared.heldout_rows[kind] for kind, path in prepared.heldout.items()}
    for path, rows in files.items():
        try:
            with path.open("rb") as file:
                count = sum(1 for _ in file)
        except OSError as error:
            raise _changed(f"{path} cannot be read: {error.strerror}") from None
        if count != rows:
            raise _changed(f"{path} has {count} rows, not the {rows} that were dealt")


def _changed(message: str) -> DataError:
    return DataError(message, "put the file back, or remove the folder and prepare again")


def skew_tables(prepared: PreparedData) -> str:
    """Return one table of labels over clients for each kind."""
    tables = [
        f"{_title(kind)}\n\n{skew_table(_label_counts(prepared, kind))}"
        for kind in prepared.heldout
    ]
    return "\n".join([*tables, *(f"{note}\n" for note in rating_notes(prepared))])


def rating_notes(prepared: PreparedData) -> list[str]:
    """Return lines about the ratings of all clients, and about those with one rating only."""
    rated = [shard for shard in prepared.shards if shard.good is not None]
    if not rated:
        return []
    good = sum(shard.good or 0 for shard in rated)
    notes = [f"{KIND_NAMES['kto']}: {good} good, {sum(shard.rows for shard in rated) - good} bad"]
    for name, found in (
        ("good", [shard.client_id for shard in rated if shard.good == shard.rows]),
        ("bad", [shard.client_id for shard in rated if shard.good == 0]),
    ):
        if found:
            more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            has = "has" if len(found) == 1 else "have"
            notes.append(f"{', '.join(found[:_NAMED])}{more} {has} {name} answers only")
    return notes


def _title(kind: RowKind) -> str:
    return f"{KIND_NAMES[kind]} ({kind})"


def _label_counts(prepared: PreparedData, kind: RowKind) -> LabelCounts:
    return [shard.topics for shard in prepared.shards if shard.kind == kind]


def require_settings(prepared: PreparedData, settings: dict[str, Any]) -> None:
    """Check that a folder was prepared with these settings.

    Raises:
        DataError: It was prepared with others; names the first difference.
    """
    for name, value in settings.items():
        was = prepared.settings.get(name)
        if was != value:
            raise DataError(
                f"{prepared.folder} was prepared {_difference(name, was, value)}",
                "choose another folder, or remove this one",
            )


def _difference(name: str, was: Any, value: Any) -> str:
    if name == "kinds":
        return f"for {' and '.join(was)}, not for {' and '.join(value)}"
    if name in ("rows", "data"):
        kind = next(kind for kind in value if was[kind] != value[kind])
        if name == "rows":
            return f"from {was[kind]} rows of {KIND_NAMES[kind]}, not {value[kind]}"
        return f"from other rows of {KIND_NAMES[kind]}"
    return f"with {name} = {was}, not {value}"

"""Preparation of a run's data: deals rows to clients and writes one file per client and kind.

Data path: `learning.data.rows` (all rows) → `learning.data.partition` (the rows of each client) →
here → `learning.data.prepared_data` (the folder). Next: a worker reads its client's file with
`worker.data.shards` and tokenises it with `learning.objectives.tokens`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from common.errors import ConfigError, DataError
from common.files import make_private
from common.protocol.fields import RowKind
from learning.data import prepared_data
from learning.data.partition import dirichlet_partition, partition_labels
from learning.data.prepared_data import KIND_NAMES, MANIFEST, PreparedData, Shard
from learning.data.row_types import RatedAnswer, Row
from learning.data.rows import write
from learning.data.splits import SIDES, hold_out, row_rank, split_rows

_MINIMUM = 20  # rows per client where there are enough for that; never under one per side


def prepare_shards(
    rows: Mapping[RowKind, Sequence[Row]],
    *,
    clients: int,
    alpha: float,
    by: str,
    seed: int,
    heldout: float,
    out: Path,
) -> PreparedData:
    """Set held-out rows aside, partition the others over the clients, and write all files.

    Args:
        rows: The whole data set of each kind that the run learns.
        clients: Number of clients; each gets rows of every kind.
        by: Label to skew by; see `learning.data.partition.partition_labels`.
        seed: Each kind is dealt with a seed derived from it.
        heldout: Share of rows to hold out, in [0, 1); at least one row, at most
            `learning.data.splits.MAX_HELDOUT`.
        out: Folder to write to. A folder prepared with the same settings is left as it is.

    Raises:
        ConfigError: A setting is out of its range.
        DataError: There are too few rows of a kind, or the folder was prepared with other settings.
    """
    settings: dict[str, Any] = {
        "clients": clients, "alpha": alpha, "partition": by, "seed": seed, "heldout": heldout,
        "kinds": [kind for kind in get_args(RowKind) if kind in rows],
        "rows": {kind: len(own) for kind, own in rows.items()},
        "data": {kind: _digest(own) for kind, own in rows.items()},
    }  # fmt: skip
    if (out / MANIFEST).exists():
        prepared = prepared_data.load(out)
        prepared_data.require_settings(prepared, settings)
        return prepared
    if not 0 <= heldout < 1:
        raise ConfigError(f"data.heldout is {heldout:g}", "set it to a share from 0 to below 1")
    if not rows:
        raise DataError("there are no rows to prepare", "name a data set under [data]")
    dealt = [
        _deal(kind, rows[kind], clients, alpha, by, seed, heldout) for kind in settings["kinds"]
    ]
    _make_folder(out)
    prepared = PreparedData(
        folder=out,
        shards=tuple(shard for each in dealt for shard in _write_shards(out, each)),
        heldout={each.kind: _write_heldout(out, each) for each in dealt},
        heldout_rows={each.kind: len(each.heldout) for each in dealt},
        settings=settings,
    )
    prepared_data.save(prepared)
    return prepared


def write_heldout(rows: Mapping[RowKind, Sequence[Row]], out: Path) -> PreparedData:
    """Write held-out rows alone, for a run whose clients have their own elsewhere.

    Raises:
        DataError: The folder cannot be created.
    """
    _make_folder(out)
    aside = [_DealtRows(kind, own, (), ()) for kind, own in rows.items()]
    prepared = PreparedData(
        folder=out,
        shards=(),
        heldout={each.kind: _write_heldout(out, each) for each in aside},
        heldout_rows={kind: len(own) for kind, own in rows.items()},
        settings={"clients": 0},
    )
    prepared_data.save_manifest(prepared)
    return prepared


def _digest(rows: Sequence[Row]) -> str:
    text = json.dumps([list(asdict(row).values()) for row in rows])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _DealtRows:
    """Rows of one kind as they were dealt, before anything is written."""

    kind: RowKind
    heldout: Sequence[Row]
    clients: Sequence[Sequence[Row]]
    topics: Sequence[Counter[str]]


def _deal(
    kind: RowKind,
    rows: Sequence[Row],
    clients: int,
    alpha: float,
    by: str,
    seed: int,
    heldout: float,
) -> _DealtRows:
    aside, others = hold_out(rows, heldout)
    if len(others) < SIDES * clients:
        raise _too_few(kind, rows, clients, len(others))
    names = partition_labels(others, by, seed)
    minimum = max(SIDES, min(_MINIMUM, len(others) // (2 * clients)))
    dealt = dirichlet_partition(names, clients, alpha, _kind_seed(seed, kind), minimum)
    return _DealtRows(
        kind,
        aside,
        [[others[i] for i in own] for own in dealt],
        [Counter(names[i] for i in own) for own in dealt],
    )


def _too_few(kind: RowKind, rows: Sequence[Row], clients: int, left: int) -> DataError:
    distinct = len({row_rank(row, "all") for row in rows})
    note = f" ({distinct} different)" if distinct < len(rows) else ""
    return DataError(
        f"{len(rows)} rows of {KIND_NAMES[kind]}{note} are too few for {clients} clients:"
        f" {left} are left beside the held-out set, and each client needs {SIDES}",
        "lower data.clients or data.heldout, or give more rows",
    )


def _kind_seed(seed: int, kind: RowKind) -> int:
    """Return a seed for a kind; with one seed all kinds would be dealt by the same draws."""
    if kind == "sft":
        return seed
    return int.from_bytes(hashlib.sha256(f"{kind} {seed}".encode()).digest()[:6])


def _make_folder(out: Path) -> None:
    try:
        make_private(out)
    except OSError as error:
        raise DataError(
            f"{out} cannot be created: {error.strerror}", "choose another folder"
        ) from None


def _write_shards(out: Path, dealt: _DealtRows) -> list[Shard]:
    return [
        _write_shard(out, dealt.kind, f"client_{i}", rows, topics)
        for i, (rows, topics) in enumerate(zip(dealt.clients, dealt.topics, strict=True))
    ]


def _write_shard(
    out: Path, kind: RowKind, client_id: str, rows: Sequence[Row], topics: Counter[str]
) -> Shard:
    path = out / f"{client_id}_{kind}.jsonl"
    write(path, rows)
    parts = split_rows(rows)
    return Shard(
        client_id=client_id,
        kind=kind,
        path=path,
        rows=len(rows),
        train_rows=len(parts.train),
        validation_rows=len(parts.validation),
        holdout_rows=len(parts.holdout),
        topics=dict(sorted(topics.items())),
        good=_count_good(rows) if kind == "kto" else None,
    )


def _count_good(rows: Sequence[Row]) -> int:
    return sum(isinstance(row, RatedAnswer) and row.good for row in rows)


def _write_heldout(out: Path, dealt: _DealtRows) -> Path:
    path = out / f"heldout_{dealt.kind}.jsonl"
    write(path, dealt.heldout)
    return path

"""The data of a run on disk: one file per client, a held-out file for all, and what went where.

Rows become `client_<i>_sft.jsonl`, which only that client reads, and `heldout_sft.jsonl`, which no
client does. Splits go by a hash of a row's text, so that equal rows never stand on both sides and a
row stays on its side when the data set grows. The manifest is written last: a folder without one
was never finished, and is simply prepared again.

Data path: `learning.instructions` → `learning.partition` → here → `learning.tokens` (in a worker).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.errors import ConfigError, DataError
from common.files import write_durable
from learning.instructions import Instruction, write
from learning.partition import dirichlet, labels
from learning.skew import picture, table

MAX_HELDOUT = 400
"""Rows of the global held-out set at most: enough to compare versions, quick to evaluate."""
HOLDOUT = 0.1
"""Share of a client's rows that it keeps to itself to measure by."""
_MINIMUM = 20  # rows per client where there are enough for that; never under 2, one a side
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Shard:
    """One client's data.

    Attributes:
        client_id: `client_0` and so on.
        path: Its file of rows; `split` parts them.
        rows: All its rows: train_rows + holdout_rows.
        train_rows: Rows to learn.
        holdout_rows: Rows to measure by.
        topics: Rows by label.
    """

    client_id: str
    path: Path
    rows: int
    train_rows: int
    holdout_rows: int
    topics: dict[str, int]


@dataclass(frozen=True)
class Prepared:
    """A folder of prepared data; `settings` is what it was made from and with."""

    folder: Path
    clients: tuple[Shard, ...]
    heldout: Path
    heldout_rows: int
    settings: dict[str, Any]


def prepare(
    rows: Sequence[Instruction],
    *,
    clients: int,
    alpha: float,
    by: str,
    seed: int,
    heldout: float,
    out: Path,
) -> Prepared:
    """Sets held-out rows aside, partitions the others, and writes all files.

    Args:
        rows: The whole data set.
        clients: Number of clients.
        alpha: Concentration of the Dirichlet distribution.
        by: Label to skew by; see `learning.partition.labels`.
        seed: Of the partition.
        heldout: Share of rows to hold out, in [0, 1); at most `MAX_HELDOUT` rows, at least one.
        out: Folder to write to. One that was prepared in the same way is left as it is.

    Raises:
        ConfigError: A setting is out of its range.
        DataError: There are too few rows, or the folder was prepared in another way.
    """
    settings: dict[str, Any] = {
        "clients": clients, "alpha": alpha, "partition": by, "seed": seed, "heldout": heldout,
        "rows": len(rows), "data": _digest(rows),
    }  # fmt: skip
    if (out / _MANIFEST).exists():
        return _same(load(out), settings)
    if not 0 <= heldout < 1:
        raise ConfigError(f"data.heldout is {heldout:g}", "set it to a share from 0 to below 1")
    aside, others = _hold_out(rows, heldout)
    if len(others) < 2 * clients:
        raise DataError(
            f"{len(rows)} rows are too few for {clients} clients and a held-out set",
            "lower data.clients or give more rows",
        )
    names = labels(others, by, seed)
    minimum = max(2, min(_MINIMUM, len(others) // (2 * clients)))
    dealt = dirichlet(names, clients, alpha, seed, minimum)
    _make(out)
    shards = tuple(
        _shard(out, i, [others[j] for j in own], Counter(names[j] for j in own))
        for i, own in enumerate(dealt)
    )
    write(out / "heldout_sft.jsonl", tuple(aside))
    prepared = Prepared(out, shards, out / "heldout_sft.jsonl", len(aside), settings)
    _describe(prepared)
    return prepared


def load(out: Path) -> Prepared:
    """Reads what `prepare` wrote.

    Raises:
        DataError: There is no manifest, or it is damaged.
    """
    path = out / _MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        shards = tuple(
            Shard(**{**shard, "path": out / shard["path"]}) for shard in found["clients"]
        )
        return Prepared(
            out, shards, out / found["heldout"], found["heldout_rows"], found["settings"]
        )
    except FileNotFoundError:
        raise DataError(f"{out} holds no prepared data", "run fccl prepare") from None
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path} is damaged: {error!r}", "remove the folder, prepare again"
        ) from None


def split(rows: Sequence[Instruction]) -> tuple[list[Instruction], list[Instruction]]:
    """A client's rows to learn and to measure by, by hash; of two rows and more, one each at least.

    The hash is not the one that set the global held-out rows aside: of that one, only large values
    are left.
    """
    ranks = [_rank(row, "client") for row in rows]
    ordered = sorted(set(ranks))
    if len(ordered) < 2:  # nothing to tell the rows apart by
        return list(rows[len(rows) // 2 :]), list(rows[: len(rows) // 2])
    below = sum(rank < HOLDOUT for rank in ordered)
    cut = ordered[min(max(below, 1), len(ordered) - 1) - 1]
    train = [row for row, rank in zip(rows, ranks, strict=True) if rank > cut]
    holdout = [row for row, rank in zip(rows, ranks, strict=True) if rank <= cut]
    return train, holdout


def _hold_out(
    rows: Sequence[Instruction], share: float
) -> tuple[list[Instruction], list[Instruction]]:
    """Held-out rows and the others, each in their order."""
    ranks = [_rank(row, "all") for row in rows]
    ordered = sorted(ranks)
    below = sum(rank < share for rank in ranks)
    cut = ordered[max(0, min(below, MAX_HELDOUT) - 1)] if ordered else 0.0
    aside = [row for row, rank in zip(rows, ranks, strict=True) if rank <= cut]
    return aside, [row for row, rank in zip(rows, ranks, strict=True) if rank > cut]


def _rank(row: Instruction, salt: str) -> float:
    """A number in [0, 1) from a row's text, the same on every machine."""
    text = json.dumps([salt, row.instruction, row.input, row.output])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def _digest(rows: Sequence[Instruction]) -> str:
    text = json.dumps([list(asdict(row).values()) for row in rows])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{out} cannot be made: {error.strerror}", "choose another folder"
        ) from None


def _shard(out: Path, number: int, rows: Sequence[Instruction], topics: Counter[str]) -> Shard:
    path = out / f"client_{number}_sft.jsonl"
    write(path, tuple(rows))
    train, holdout = split(rows)
    by_label = dict(sorted(topics.items()))
    return Shard(f"client_{number}", path, len(rows), len(train), len(holdout), by_label)


def _describe(prepared: Prepared) -> None:
    """Writes table, picture and, when all else is there, the manifest."""
    counts = [shard.topics for shard in prepared.clients]
    (prepared.folder / "skew.txt").write_text(table(counts), encoding="utf-8")
    picture(counts, prepared.folder / "skew.png")
    manifest = {
        "settings": prepared.settings,
        "heldout": prepared.heldout.name,
        "heldout_rows": prepared.heldout_rows,
        "clients": [{**asdict(shard), "path": shard.path.name} for shard in prepared.clients],
    }
    write_durable(prepared.folder / _MANIFEST, json.dumps(manifest, indent=1).encode())


def _same(found: Prepared, settings: dict[str, Any]) -> Prepared:
    for name, value in settings.items():
        if found.settings.get(name) != value:
            was = f"with {name} = {found.settings.get(name)}, not {value}"
            raise DataError(
                f"{found.folder} was prepared {'from other rows' if name == 'data' else was}",
                "choose another folder, or remove this one",
            )
    return found

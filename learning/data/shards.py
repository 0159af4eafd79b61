"""The data of a run on disk: a file per client and kind, a held-out file per kind, what went where.

Rows become `client_<i>_<kind>.jsonl`, which only that client reads, and `heldout_<kind>.jsonl`,
which no client does. Splits go by a hash of a row's text, so that equal rows never stand on two
sides and a row stays on its side when the data set grows. The manifest is written last: a folder
without one was never finished, and is simply prepared again.

Data path: `learning.data.rows` → `learning.data.partition` → here → `learning.objectives.tokens` (in a
worker).
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

from common.errors import ConfigError, DataError
from common.files import write_durable
from common.protocol.fields import RowKind
from learning.data.partition import dirichlet_partition, partition_labels
from learning.data.row_types import Instruction, PreferencePair, Row
from learning.data.rows import write
from learning.data.skew_report import LabelCounts, plot_skew, skew_table

MAX_HELDOUT = 400
"""Rows of a global held-out set at most: enough to compare versions, quick to evaluate."""
HOLDOUT = 0.1
"""Share of a client's rows that it measures itself by before and after every task."""
VALIDATION = 0.1
"""Share of a client's rows that only `fccl evaluate` reads: no task trains on them or sees them."""
MANIFEST = "manifest.json"
"""In a folder of prepared rows: where each row went, and by which settings."""
_SIDES = 3  # train, validation, holdout
_MINIMUM = 20  # rows per client where there are enough for that; never under one a side
_CALLED: dict[RowKind, str] = {"sft": "instructions", "va": "preferences", "cls": "labelled texts"}

R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Shard:
    """One client's rows of one kind.

    Attributes:
        client_id: `client_0` and so on.
        kind: What its rows teach.
        path: Its file of rows; `split_rows` parts them.
        rows: All its rows: train_rows + validation_rows + holdout_rows.
        train_rows: Rows to learn.
        validation_rows: Rows that a finished run is evaluated on.
        holdout_rows: Rows that a task is measured by.
        topics: Rows by label.
    """

    client_id: str
    kind: RowKind
    path: Path
    rows: int
    train_rows: int
    validation_rows: int
    holdout_rows: int
    topics: dict[str, int]


@dataclass(frozen=True)
class PreparedData:
    """A folder of prepared data.

    Attributes:
        folder: Where it lies.
        shards: By kind, and of one kind by client.
        heldout: The held-out file of each kind.
        heldout_rows: Its rows.
        settings: What the data was made from and with.
    """

    folder: Path
    shards: tuple[Shard, ...]
    heldout: Mapping[RowKind, Path]
    heldout_rows: Mapping[RowKind, int]
    settings: dict[str, Any]

    def rows(self) -> dict[str, dict[RowKind, int]]:
        """Rows to learn, by client id and kind."""
        found: dict[str, dict[RowKind, int]] = {}
        for shard in self.shards:
            found.setdefault(shard.client_id, {})[shard.kind] = shard.train_rows
        return found


@dataclass(frozen=True)
class Split(Generic[R]):
    """A client's rows, each on one side, in their order."""

    train: tuple[R, ...]
    validation: tuple[R, ...]
    holdout: tuple[R, ...]


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
    """Sets held-out rows aside, partitions the others, and writes all files.

    Args:
        rows: The whole data set of each kind that the run learns.
        clients: Number of clients; each gets rows of every kind.
        alpha: Concentration of the Dirichlet distribution.
        by: Label to skew by; see `learning.data.partition.partition_labels`.
        seed: Of the partition. Each kind is dealt by a seed of its own that follows from it.
        heldout: Share of rows to hold out, in [0, 1); at most `MAX_HELDOUT` rows, at least one.
        out: Folder to write to. One that was prepared in the same way is left as it is.

    Raises:
        ConfigError: A setting is out of its range.
        DataError: There are too few rows of a kind, or the folder was prepared in another way.
    """
    settings: dict[str, Any] = {
        "clients": clients, "alpha": alpha, "partition": by, "seed": seed, "heldout": heldout,
        "kinds": [kind for kind in get_args(RowKind) if kind in rows],
        "rows": {kind: len(own) for kind, own in rows.items()},
        "data": {kind: _digest(own) for kind, own in rows.items()},
    }  # fmt: skip
    if (out / MANIFEST).exists():
        return _same(load_prepared(out), settings)
    if not 0 <= heldout < 1:
        raise ConfigError(f"data.heldout is {heldout:g}", "set it to a share from 0 to below 1")
    if not rows:
        raise DataError("there are no rows to prepare", "name a data set under [data]")
    dealt = [
        _deal(kind, rows[kind], clients, alpha, by, seed, heldout) for kind in settings["kinds"]
    ]
    _make(out)
    prepared = PreparedData(
        folder=out,
        shards=tuple(shard for one in dealt for shard in _shards(out, one)),
        heldout={one.kind: _heldout(out, one) for one in dealt},
        heldout_rows={one.kind: len(one.aside) for one in dealt},
        settings=settings,
    )
    _describe(prepared)
    return prepared


def load_prepared(out: Path) -> PreparedData:
    """Reads what `prepare_shards` wrote.

    Raises:
        DataError: There is no manifest, or it is damaged.
    """
    path = out / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        shards = tuple(
            Shard(**{**shard, "kind": _kind(shard["kind"]), "path": out / shard["path"]})
            for shard in found["shards"]
        )
        return PreparedData(
            folder=out,
            shards=shards,
            heldout={_kind(kind): out / name for kind, name in found["heldout"].items()},
            heldout_rows={_kind(kind): n for kind, n in found["heldout_rows"].items()},
            settings=found["settings"],
        )
    except FileNotFoundError:
        raise DataError(f"{out} holds no prepared data", "run fccl prepare") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path} is damaged: {error!r}", "remove the folder, prepare again"
        ) from None


def check_files(prepared: PreparedData) -> None:
    """Refuses a folder of which a file of rows was lost, cut or edited since.

    Raises:
        DataError: A file is missing or has other numbers of rows than the manifest says.
    """
    files = {shard.path: shard.rows for shard in prepared.shards}
    files |= {path: prepared.heldout_rows[kind] for kind, path in prepared.heldout.items()}
    for path, rows in files.items():
        try:
            with path.open("rb") as file:
                found = sum(1 for _ in file)
        except OSError as error:
            raise _changed(f"{path} cannot be read: {error.strerror}") from None
        if found != rows:
            raise _changed(f"{path} has {found} rows, not the {rows} that were dealt")


def _changed(what: str) -> DataError:
    return DataError(what, "put the file back, or remove the folder and prepare again")


def skew_tables(prepared: PreparedData) -> str:
    """The tables of labels over clients, one for each kind."""
    return "\n".join(
        f"{_called(kind)}\n\n{skew_table(_counts(prepared, kind))}" for kind in prepared.heldout
    )


def _called(kind: RowKind) -> str:
    return f"{_CALLED[kind]} ({kind})"


def _counts(prepared: PreparedData, kind: RowKind) -> LabelCounts:
    return [shard.topics for shard in prepared.shards if shard.kind == kind]


def split_rows(rows: Sequence[R]) -> Split[R]:
    """A client's rows to learn, to evaluate and to measure by, parted by hash.

    The smallest hashes are the holdout, the largest the validation side, so that neither moves when
    the other is cut differently. Where three distinct rows are there, each side has one; of two,
    the validation side stays empty. Rows that are all alike cannot be told apart and fill train and
    holdout in halves, one row only train. Preferences of one prompt count as alike.

    The hash is not the one that set the global held-out rows aside: of that one, only large values
    are left.
    """
    ranks = [_rank(row, "client") for row in rows]
    ordered = sorted(set(ranks))
    if len(ordered) < 2:
        half = len(rows) // 2
        return Split(tuple(rows[half:]), (), tuple(rows[:half]))
    low, high = _cuts(ordered)
    sides: tuple[list[R], list[R], list[R]] = ([], [], [])
    for row, rank in zip(rows, ranks, strict=True):
        sides[2 if rank <= low else 1 if rank > high else 0].append(row)
    return Split(*map(tuple, sides))


def _cuts(ordered: Sequence[float]) -> tuple[float, float]:
    """The last rank of the holdout and of the training rows, of two distinct ranks or more."""
    n = len(ordered)
    last = min(max(bisect_left(ordered, HOLDOUT), 1), n - min(n - 1, _SIDES - 1))
    above = n - bisect_left(ordered, 1 - VALIDATION)
    above = min(max(above, 1), n - last - 1)
    return ordered[last - 1], ordered[n - above - 1]


@dataclass(frozen=True)
class _Dealt:
    """What `prepare_shards` decides about one kind before it writes anything."""

    kind: RowKind
    aside: Sequence[Row]
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
) -> _Dealt:
    aside, others = _hold_out(rows, heldout)
    if len(others) < _SIDES * clients:
        different = len({_rank(row, "all") for row in rows})
        alike = f" ({different} different)" if different < len(rows) else ""
        raise DataError(
            f"{len(rows)} rows of {_CALLED[kind]}{alike} are too few for {clients} clients:"
            f" {len(others)} are left beside the held-out set, and each client needs {_SIDES}",
            "lower data.clients or data.heldout, or give more rows",
        )
    names = partition_labels(others, by, seed)
    minimum = max(_SIDES, min(_MINIMUM, len(others) // (2 * clients)))
    dealt = dirichlet_partition(names, clients, alpha, _seed(seed, kind), minimum)
    return _Dealt(
        kind,
        aside,
        [[others[i] for i in own] for own in dealt],
        [Counter(names[i] for i in own) for own in dealt],
    )


def _seed(seed: int, kind: RowKind) -> int:
    """A seed for a kind: otherwise all would be dealt by the same draws."""
    if kind == "sft":
        return seed
    return int.from_bytes(hashlib.sha256(f"{kind} {seed}".encode()).digest()[:6])


def _hold_out(rows: Sequence[Row], share: float) -> tuple[list[Row], list[Row]]:
    """Held-out rows and the others, each in their order."""
    ranks = [_rank(row, "all") for row in rows]
    ordered = sorted(ranks)
    below = sum(rank < share for rank in ranks)
    cut = ordered[max(0, min(below, MAX_HELDOUT) - 1)] if ordered else 0.0
    aside = [row for row, rank in zip(rows, ranks, strict=True) if rank <= cut]
    return aside, [row for row, rank in zip(rows, ranks, strict=True) if rank > cut]


def _rank(row: Row, salt: str) -> float:
    """A number in [0, 1) from a row's text, the same on every machine.

    Of a preference only the prompt counts: a side that has seen one pair of a prompt has seen part
    of the answer to its others.
    """
    if isinstance(row, Instruction):
        parts = [row.instruction, row.input, row.output]
    elif isinstance(row, PreferencePair):
        parts = [row.prompt]
    else:
        parts = [row.text]
    text = json.dumps([salt, *parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def _digest(rows: Sequence[Row]) -> str:
    text = json.dumps([list(asdict(row).values()) for row in rows])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{out} cannot be made: {error.strerror}", "choose another folder"
        ) from None


def _shards(out: Path, dealt: _Dealt) -> list[Shard]:
    return [
        _shard(out, dealt.kind, f"client_{i}", rows, topics)
        for i, (rows, topics) in enumerate(zip(dealt.clients, dealt.topics, strict=True))
    ]


def _shard(
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
    )


def _heldout(out: Path, dealt: _Dealt) -> Path:
    path = out / f"heldout_{dealt.kind}.jsonl"
    write(path, dealt.aside)
    return path


def _describe(prepared: PreparedData) -> None:
    """Writes tables, pictures and, when all else is there, the manifest."""
    for kind in prepared.heldout:
        plot_skew(_counts(prepared, kind), _called(kind), prepared.folder / f"skew_{kind}.png")
    (prepared.folder / "skew.txt").write_text(skew_tables(prepared), encoding="utf-8")
    manifest = {
        "settings": prepared.settings,
        "heldout": {kind: path.name for kind, path in prepared.heldout.items()},
        "heldout_rows": prepared.heldout_rows,
        "shards": [{**asdict(shard), "path": shard.path.name} for shard in prepared.shards],
    }
    write_durable(prepared.folder / MANIFEST, json.dumps(manifest, indent=1).encode())


def _kind(name: str) -> RowKind:
    for kind in _CALLED:
        if name == kind:
            return kind
    raise ValueError(f"{name!r} is no kind of row")


def _same(found: PreparedData, settings: dict[str, Any]) -> PreparedData:
    """The folder as found, where it was prepared with these settings."""
    for name, value in settings.items():
        was = found.settings.get(name)
        if was != value:
            raise DataError(
                f"{found.folder} was prepared {_difference(name, was, value)}",
                "choose another folder, or remove this one",
            )
    return found


def _difference(name: str, was: Any, value: Any) -> str:
    """How a setting of a prepared folder differs from the wanted one, in a few words."""
    if name == "kinds":
        return f"for {' and '.join(was)}, not for {' and '.join(value)}"
    if name in ("rows", "data"):
        kind = next(kind for kind in value if was[kind] != value[kind])
        if name == "rows":
            return f"from {was[kind]} rows of {_CALLED[kind]}, not {value[kind]}"
        return f"from other rows of {_CALLED[kind]}"
    return f"with {name} = {was}, not {value}"

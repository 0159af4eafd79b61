"""What the journal of a run says about versions and accepted updates, read at one moment.

For `fccl verify`, which recomputes the versions of runs that are finished, stopped or still run.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from common.config.config import FederationConfig
from common.errors import RunError
from common.protocol.fields import AttemptNumber, Count, Fraction, Identifier, Record, RowKind
from common.protocol.tasks import BlobRef, parse_frozen
from common.protocol.updates import ContributionStats
from common.protocol.versions import VersionSummary
from common.run_directory import journal_reader as journal
from common.run_directory.recorded_run import read_config

_ROWS = TypeAdapter(dict[str, dict[RowKind, int]])
_CONFIG = TypeAdapter(dict[str, object])


class JournaledUpdate(Record):
    """Accepted update.

    Attributes:
        norm: Before clipping.
        sha256: Of its frame.
        upload: Name of its file in the spool.
        version: The version that it is in; None while it waits in the buffer.
        kept: Name of its file in `updates/`; None if it was not kept.
    """

    task_id: Identifier
    attempt: AttemptNumber
    client_id: Identifier
    worker_id: Identifier
    base_version: Count
    stats: ContributionStats
    norm: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    clip: Fraction
    nbytes: Count
    upload: str
    version: Count | None
    kept: Identifier | None

    @property
    def sha256(self) -> str:
        return self.upload.rpartition(".")[2]


@dataclass(frozen=True)
class UpdateJournal:
    """Part of a journal that determines every version.

    Attributes:
        rows: Training rows of the clients that the coordinator dealt them to, by kind.
        layout: Digest of the tensor layout; None in a run of schema 1.
        frozen: Frame of the tensors that all versions share; None under most aggregation rules.
        versions: Summaries by the number of their row.
        updates: Accepted updates, in the order of acceptance.
        receipts: State of the receipt of each closed task.
        scores: Scores that clients cannot inflate, by task.
        noise_seeds: Seed of the noise of each version that has noise.
    """

    directory: Path
    config: FederationConfig
    run_id: str
    rows: Mapping[str, Mapping[RowKind, int]]
    adapter_config: Mapping[str, object]
    layout: str | None
    frozen: BlobRef | None
    versions: Mapping[int, VersionSummary]
    updates: tuple[JournaledUpdate, ...]
    receipts: Mapping[str, str]
    scores: Mapping[str, float]
    noise_seeds: Mapping[int, bytes]


def read_update_journal(directory: Path) -> UpdateJournal:
    """Read a run directory's journal.

    Raises:
        RunError: The directory holds no run, a damaged one, or one of another release.
        ConfigError: Its configuration is damaged.
    """
    path = directory / "run.db"
    if not path.exists():
        raise RunError(f"{directory} holds no run: it has no run.db", "name a run directory")
    config = read_config(directory)
    with journal.translated_errors(path), journal.open_journal(path) as db:
        meta = dict(db.execute("SELECT key, value FROM meta"))
        versions = db.execute("SELECT version, summary FROM version ORDER BY version")
        scored, noisy = (journal.has_table(db, name) for name in ("score", "noise_seed"))
        run = UpdateJournal(
            directory=directory,
            config=config,
            run_id=meta["run_id"],
            rows=_ROWS.validate_json(meta["clients"]),
            adapter_config=_CONFIG.validate_json(meta["adapter_config"]),
            layout=meta.get("layout"),
            frozen=parse_frozen(meta),
            versions={
                number: VersionSummary.model_validate_json(text) for number, text in versions
            },
            updates=tuple(_updates(db)),
            receipts=dict(db.execute("SELECT task_id, state FROM receipt").fetchall()),
            scores=dict(db.execute("SELECT task_id, score FROM score")) if scored else {},
            noise_seeds=dict(db.execute("SELECT version, seed FROM noise_seed")) if noisy else {},
        )
    if not run.versions:
        raise RunError(f"{path} has no version yet", "wait until the run has begun")
    return run


def _updates(db: sqlite3.Connection) -> Iterator[JournaledUpdate]:
    has_kept = journal.has_table(db, "kept_update")  # not in runs that an older release began
    kept = dict(db.execute("SELECT task_id, file FROM kept_update")) if has_kept else {}
    cursor = db.execute(
        "SELECT task_id, attempt, client_id, worker_id, base_version, stats, norm, clip, nbytes,"
        " upload, version FROM accepted ORDER BY seq"
    )
    names = [column for column, *_ in cursor.description]
    for row in cursor:
        fields = dict(zip(names, row, strict=True))
        stats = ContributionStats.model_validate_json(fields["stats"])
        kept_file = kept.get(fields["task_id"])
        yield JournaledUpdate.model_validate(fields | {"stats": stats, "kept": kept_file})

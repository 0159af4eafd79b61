"""What a run directory remembers of a run, as frozen records: for those who look at it afterwards.

The tables are the coordinator's: `coordinator/storage/journal.py` has the schema, and writes them. They are
read here by their names, because a viewer may not load the coordinator. No file is changed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from common.config import config as configuration
from common.config.config import FederationConfig
from common.errors import RunError
from common.protocol.naming import LOCAL_SITE
from common.protocol.records import (
    ContributionStats,
    Count,
    Event,
    Label,
    Record,
    RowKind,
    SampleAnswer,
    Seconds,
    VersionSummary,
)
from common.run_directory import samples


class Member(Record):
    """One client: its site, and how many training rows of each kind it has."""

    client_id: Label
    site: Label
    rows: dict[RowKind, Count]


class Issued(Record):
    """One attempt of a task, when it was handed out."""

    at: Seconds
    task_id: Label
    attempt: Count
    client_id: Label
    base_version: Count


class Settled(Record):
    """The receipt of a task."""

    at: Seconds
    task_id: Label
    client_id: Label
    accepted: bool


class Accepted(Record):
    """An update that was or will be applied, when it was accepted."""

    at: Seconds
    task_id: Label
    client_id: Label
    worker_id: Label
    base_version: Count
    stats: ContributionStats


@dataclass(frozen=True)
class Recording:
    """A run. Everything that has a time is in its order.

    Attributes:
        directory: Of the run.
        config: As the run began.
        run: Its id.
        software: That began it.
        members: All clients that ever took part, by id.
        versions: Summaries of all versions.
        events: The journal's; it drops the oldest of very many.
        issued: Attempts.
        settled: Receipts.
        accepted: Updates.
        samples: What versions said of held-out rows.
    """

    directory: Path
    config: FederationConfig
    run: str
    software: str
    members: Mapping[str, Member]
    versions: tuple[VersionSummary, ...]
    events: tuple[Event, ...]
    issued: tuple[Issued, ...]
    settled: tuple[Settled, ...]
    accepted: tuple[Accepted, ...]
    samples: tuple[SampleAnswer, ...] = ()

    @property
    def began(self) -> float:
        """The time of the first event or task, seconds since the epoch.

        Version 0 is older: it may have waited for a base model, or for a worker.
        """
        parts = (self.events, self.issued)
        return min((part[0].at for part in parts if part), default=self.versions[0].at)

    @property
    def ended(self) -> float:
        """The time of the last entry."""
        parts = (self.versions, self.events, self.issued, self.settled, self.accepted)
        return max(part[-1].at for part in (*parts, self.samples) if part)


def read(directory: Path) -> Recording:
    """Read a run directory: of a run that is over, or still goes on.

    Raises:
        RunError: It holds no run, a damaged one, or one of another release.
        ConfigError: Its `federation.toml` was damaged.
    """
    toml, path = directory / "federation.toml", directory / "run.db"
    for file in (toml, path):
        if not file.exists():
            raise RunError(f"{directory} holds no run: no {file.name}", "name one under runs/")
    config = configuration.load(toml, {})
    try:
        with _opened(path) as db:
            recording = _recording(directory, config, db)
    except sqlite3.DatabaseError as error:
        raise RunError(f"{path}: {error}", "restore it from a backup") from None
    except (KeyError, ValueError, TypeError) as error:  # ValidationError, JSON's: ValueErrors
        what = type(error).__name__ if isinstance(error, ValidationError) else str(error)[:100]
        raise RunError(
            f"{path} lacks or misstates {what}", "read it with the release of fccl that made it"
        ) from None
    if not recording.versions:
        raise RunError(f"{path} has no version yet", "wait until the run has begun")
    return recording


def _recording(directory: Path, config: FederationConfig, db: sqlite3.Connection) -> Recording:
    meta = dict(db.execute("SELECT key, value FROM meta"))
    dealt = {
        name: Member(client_id=name, site=LOCAL_SITE, rows=rows)
        for name, rows in json.loads(meta["clients"]).items()
    }
    summaries = db.execute("SELECT summary FROM version ORDER BY version")
    events = db.execute("SELECT at, level, kind, text, refs FROM event ORDER BY at, id")
    issued = db.execute(
        "SELECT issued_at, task_id, attempt, client_id, base_version FROM attempt"
        " JOIN task USING (task_id) ORDER BY issued_at, task.rowid"
    )
    settled = db.execute(
        "SELECT at, task_id, client_id, state = 'accepted' FROM receipt"
        " JOIN task USING (task_id) ORDER BY at, receipt.rowid"
    )
    accepted = db.execute(
        "SELECT at, task_id, client_id, worker_id, base_version, stats FROM accepted"
        " ORDER BY at, seq"
    )
    return Recording(
        directory=directory,
        config=config,
        run=meta["run_id"],
        software=meta["software"],
        members={**dealt, **_joined(db)},
        versions=tuple(VersionSummary.model_validate_json(line) for (line,) in summaries),
        events=tuple(
            Event(at=at, level=level, kind=kind, text=text, refs=json.loads(refs))
            for at, level, kind, text, refs in events
        ),
        issued=tuple(
            Issued(at=at, task_id=task, attempt=attempt, client_id=client, base_version=base)
            for at, task, attempt, client, base in issued
        ),
        settled=tuple(
            Settled(at=at, task_id=task, client_id=client, accepted=bool(good))
            for at, task, client, good in settled
        ),
        accepted=tuple(
            Accepted(
                at=at,
                task_id=task,
                client_id=client,
                worker_id=worker,
                base_version=base,
                stats=ContributionStats.model_validate_json(stats),
            )
            for at, task, client, worker, base, stats in accepted
        ),
        samples=tuple(sorted(samples.read(directory), key=lambda sample: sample.at)),
    )


def _joined(db: sqlite3.Connection) -> dict[str, Member]:
    there = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'member'").fetchone()
    if there is None:  # a run begun before sites could be invited
        return {}
    rows = db.execute("SELECT client_id, site, rows FROM member ORDER BY rowid")
    return {
        client: Member(client_id=client, site=site, rows=json.loads(counts))
        for client, site, counts in rows
    }


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The database at one moment of it.

    Without a write-ahead log nobody has it open, and `immutable` leaves no trace, even on read-only
    media; beside a running coordinator its log is read, too.
    """
    how = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    uri = f"{path.resolve().as_uri()}?{how}"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10)) as db:
        db.execute("BEGIN")
        yield db

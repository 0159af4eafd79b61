"""Read-only queries to a run's journal, `run.db`. Records with a time are sorted by it.

`coordinator/storage/journal.py` writes the tables (`journal_tables.py`). Viewers do not import it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from pydantic import ValidationError

from common.config.config import PhaseConfig
from common.errors import RunError
from common.protocol.evaluations import EvalResult
from common.protocol.feed import Event
from common.protocol.updates import ContributionStats
from common.run_directory.journal_tables import check_known
from common.run_directory.records import (
    AcceptedUpdate,
    AttemptRecord,
    ClientRecord,
    EvaluationRecord,
    ReceiptRecord,
    RoundRecord,
    ScoreRecord,
)

_EVALUATIONS = (
    "SELECT at, task_id, client_id, version, phase, result FROM evaluation"
    " WHERE state = 'accepted' AND candidate = '' ORDER BY at, rowid"
)
_EVALUATIONS_OF = (
    "SELECT at, task_id, client_id, version, phase, result FROM evaluation"
    " WHERE state = 'accepted' AND candidate = '' AND version = ? AND phase = ? ORDER BY at, rowid"
)
_ROUNDS = (
    "SELECT opened_at, closed_at, version, phase FROM evaluation_round ORDER BY opened_at, rowid"
)
_ROUNDS_OF = (
    "SELECT opened_at, closed_at, version, phase FROM evaluation_round"
    " WHERE version = ? AND phase = ?"
)


def read_invited_clients(db: sqlite3.Connection) -> dict[str, ClientRecord]:
    """Return the clients of invited sites by id, in the order of joining."""
    if not has_table(db, "member"):  # a run that began before sites could be invited
        return {}
    rows = db.execute("SELECT client_id, site, rows FROM member ORDER BY rowid")
    return {
        client: ClientRecord(client_id=client, site=site, rows=json.loads(counts))
        for client, site, counts in rows
    }


def read_events(db: sqlite3.Connection) -> tuple[Event, ...]:
    rows = db.execute("SELECT at, level, kind, text, refs FROM event ORDER BY at, id")
    return tuple(
        Event(at=at, level=level, kind=kind, text=text, refs=json.loads(refs))
        for at, level, kind, text, refs in rows
    )


def read_attempts(db: sqlite3.Connection) -> tuple[AttemptRecord, ...]:
    rows = db.execute(
        "SELECT issued_at, task_id, attempt, client_id, base_version FROM attempt"
        " JOIN task USING (task_id) ORDER BY issued_at, task.rowid"
    )
    return tuple(
        AttemptRecord(at=at, task_id=task, attempt=attempt, client_id=client, base_version=base)
        for at, task, attempt, client, base in rows
    )


def read_receipts(db: sqlite3.Connection) -> tuple[ReceiptRecord, ...]:
    rows = db.execute(
        "SELECT at, task_id, client_id, state = 'accepted' FROM receipt"
        " JOIN task USING (task_id) ORDER BY at, receipt.rowid"
    )
    return tuple(
        ReceiptRecord(at=at, task_id=task, client_id=client, accepted=bool(accepted))
        for at, task, client, accepted in rows
    )


def read_updates(db: sqlite3.Connection) -> tuple[AcceptedUpdate, ...]:
    rows = db.execute(
        "SELECT at, task_id, client_id, worker_id, base_version, stats FROM accepted"
        " ORDER BY at, seq"
    )
    return tuple(
        AcceptedUpdate(
            at=at,
            task_id=task,
            client_id=client,
            worker_id=worker,
            base_version=base,
            stats=ContributionStats.model_validate_json(stats),
        )
        for at, task, client, worker, base, stats in rows
    )


@contextmanager
def open_journal(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the journal for reading, in a transaction that sees one state of it.

    A journal of a newer release raises `RunError`.

    Without a write-ahead log no process has it open, and `immutable` leaves no trace, even on
    read-only media. While a coordinator runs, its write-ahead log is read too.
    """
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    uri = f"{path.resolve().as_uri()}?{mode}"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10)) as db:
        db.execute("BEGIN")
        check_known(db, path)
        yield db


def is_locked(error: sqlite3.Error) -> bool:
    """Return whether SQLite gave up waiting for the lock of another process."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extended part
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


@contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Turn errors of the database and of its content into `RunError`."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if is_locked(error):
            raise RunError(
                f"{path} is locked by another process", "try again, or end that process"
            ) from None
        raise RunError(f"{path}: {error}", "restore it from a backup") from None
    except (KeyError, ValueError, TypeError) as error:  # ValidationError and JSON's: ValueErrors
        what = type(error).__name__ if isinstance(error, ValidationError) else str(error)[:100]
        raise RunError(
            f"{path} lacks or misstates {what}", "read it with the release of fccl that made it"
        ) from None


def read_evaluations(
    db: sqlite3.Connection, phases: Sequence[PhaseConfig], of: tuple[int, int] | None = None
) -> tuple[EvaluationRecord, ...]:
    """Return the clients' evaluations of versions, without those that score an update.

    `of` limits them to those of one version with one phase.
    """
    if not has_table(db, "evaluation"):
        return ()
    rows = db.execute(_EVALUATIONS_OF if of else _EVALUATIONS, of or ())
    records = []
    for at, task, client, version, phase, text in rows:
        result = EvalResult.model_validate_json(text)
        records.append(
            EvaluationRecord(
                at=at,
                task_id=task,
                client_id=client,
                version=version,
                phase=phase,
                kind=phases[phase].kind,
                sums=result.sums,
                seconds=result.seconds,
            )
        )
    return tuple(records)


def read_rounds(
    db: sqlite3.Connection,
    started: Mapping[str, float] | None = None,
    of: tuple[int, int] | None = None,
) -> tuple[RoundRecord, ...]:
    """Return the evaluations of versions that became due at all clients.

    Args:
        db: Journal.
        started: Time of each client's first task or evaluation, if it is known.
        of: Version and phase of the evaluation to return; None returns all.
    """
    if not has_table(db, "evaluation_round"):
        return ()
    known = sorted((_first_issues(db) if started is None else started).items())
    rows = db.execute(_ROUNDS_OF if of else _ROUNDS, of or ())
    return tuple(
        RoundRecord(
            at=at,
            closed_at=closed,
            version=version,
            phase=phase,
            expected=tuple(c for c, since in known if closed is None or since <= closed),
        )
        for at, closed, version, phase in rows
    )


def _first_issues(db: sqlite3.Connection) -> dict[str, float]:
    query = (
        "SELECT client_id, MIN(issued_at) FROM (SELECT client_id, issued_at FROM attempt"
        " JOIN task USING (task_id) UNION ALL SELECT client_id, issued_at FROM evaluation)"
        " GROUP BY client_id"
    )
    return dict(db.execute(query).fetchall())


def read_scores(db: sqlite3.Connection) -> tuple[ScoreRecord, ...]:
    """Return the scores of updates that clients cannot inflate."""
    if not has_table(db, "score"):
        return ()
    rows = db.execute(
        "SELECT score.at, task_id, client_id, source, score, seconds, score.nbytes FROM score"
        " JOIN task USING (task_id) ORDER BY score.at, score.rowid"
    )
    return tuple(
        ScoreRecord(
            at=at,
            task_id=task,
            client_id=client,
            source=source,
            score=score,
            seconds=seconds,
            nbytes=nbytes,
        )
        for at, task, client, source, score, seconds, nbytes in rows
    )


def has_table(db: sqlite3.Connection, name: str) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE name = ?"
    return db.execute(query, (name,)).fetchone() is not None

"""Tables of the journal, and the connection to its SQLite database.

Viewers (`common/run_directory/recorded_run.py`) and later releases read the same tables: add new
ones to `ADDED_TABLES`, and change none.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import RunError
from coordinator.storage.journal_lock import JournalLockedError, describe_lock, is_locked

LOCK_TIMEOUT_S = 10.0
"""Seconds for which a statement waits for the lock of another process."""

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE epoch (one INTEGER PRIMARY KEY CHECK (one = 1), value INTEGER NOT NULL);
CREATE TABLE task (
    task_id TEXT PRIMARY KEY, client_id TEXT NOT NULL, phase INTEGER NOT NULL,
    seed INTEGER NOT NULL, open INTEGER NOT NULL DEFAULT 1);
CREATE TABLE attempt (
    task_id TEXT NOT NULL, attempt INTEGER NOT NULL, base_version INTEGER NOT NULL,
    issued_at REAL NOT NULL, epoch INTEGER NOT NULL, PRIMARY KEY (task_id, attempt));
CREATE TABLE chunk (
    upload TEXT NOT NULL, i INTEGER NOT NULL, nbytes INTEGER NOT NULL, site TEXT NOT NULL,
    at REAL NOT NULL, PRIMARY KEY (upload, i));
CREATE TABLE accepted (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT NOT NULL UNIQUE, attempt INTEGER NOT NULL,
    client_id TEXT NOT NULL, worker_id TEXT NOT NULL, base_version INTEGER NOT NULL,
    stats TEXT NOT NULL, norm REAL NOT NULL, clip REAL NOT NULL, nbytes INTEGER NOT NULL,
    upload TEXT NOT NULL, at REAL NOT NULL, version INTEGER);
CREATE TABLE receipt (
    task_id TEXT PRIMARY KEY, attempt INTEGER NOT NULL, state TEXT NOT NULL,
    reason TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE version (version INTEGER PRIMARY KEY, summary TEXT NOT NULL);
CREATE TABLE client (
    client_id TEXT PRIMARY KEY, issued INTEGER NOT NULL, participation INTEGER NOT NULL,
    strikes INTEGER NOT NULL, last TEXT);
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT, site TEXT NOT NULL, task_id TEXT NOT NULL,
    frame BLOB NOT NULL);
CREATE TABLE event (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, level TEXT NOT NULL,
    kind TEXT NOT NULL, text TEXT NOT NULL, refs TEXT NOT NULL);
"""
ADDED_TABLES = (  # missing from runs that an older release began
    "CREATE TABLE IF NOT EXISTS member (client_id TEXT PRIMARY KEY, site TEXT NOT NULL,"
    " rows TEXT NOT NULL, left INTEGER NOT NULL);",
    "CREATE TABLE IF NOT EXISTS command (command_id TEXT PRIMARY KEY, action TEXT NOT NULL,"
    " target TEXT NOT NULL, by TEXT NOT NULL, at REAL NOT NULL, refused TEXT NOT NULL,"
    " paused INTEGER);",
    # Evaluations, with their receipts. `candidate` is the training task whose update is scored.
    "CREATE TABLE IF NOT EXISTS evaluation (task_id TEXT PRIMARY KEY, attempt INTEGER NOT NULL,"
    " client_id TEXT NOT NULL, site TEXT NOT NULL, version INTEGER NOT NULL,"
    " phase INTEGER NOT NULL, candidate TEXT NOT NULL, issued_at REAL NOT NULL,"
    " state TEXT NOT NULL, reason TEXT NOT NULL, at REAL, result TEXT);",
    "CREATE TABLE IF NOT EXISTS evaluation_round (version INTEGER NOT NULL,"
    " phase INTEGER NOT NULL, opened_at REAL NOT NULL, closed_at REAL,"
    " PRIMARY KEY (version, phase));",
    "CREATE TABLE IF NOT EXISTS score (task_id TEXT PRIMARY KEY, source TEXT NOT NULL,"
    " score REAL NOT NULL, seconds REAL NOT NULL, nbytes INTEGER NOT NULL, at REAL NOT NULL);",
    # Invited clients that let others evaluate their updates, and evaluate those of others.
    "CREATE TABLE IF NOT EXISTS sharing (client_id TEXT PRIMARY KEY,"
    " shares_updates INTEGER NOT NULL);",
    # Processes that took the run over, for people: the epoch alone decides who may write.
    "CREATE TABLE IF NOT EXISTS coordinator (epoch INTEGER PRIMARY KEY, pid INTEGER NOT NULL,"
    " host TEXT NOT NULL, at REAL NOT NULL);",
)


def create_tables(db: sqlite3.Connection) -> None:
    """Create all tables of a new journal, in one transaction, with epoch 0."""
    added = " ".join(ADDED_TABLES)
    db.executescript(f"BEGIN; {SCHEMA} {added} INSERT INTO epoch VALUES (1, 0); COMMIT;")


def add_missing_tables(db: sqlite3.Connection) -> None:
    """Create the tables that a journal of an older release lacks."""
    db.execute("SELECT value FROM epoch").fetchone()  # raises if the database is no journal
    for table in ADDED_TABLES:
        db.execute(table)


def connect(path: Path) -> sqlite3.Connection:
    """Open the database of a journal; one thread uses it, not necessarily the one that opens it."""
    db = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=LOCK_TIMEOUT_S
    )
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    return db


@contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Raise `RunError` for errors of the database."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if is_locked(error):
            raise JournalLockedError(*describe_lock(path)) from None
        raise RunError(f"{path}: {error}", "check the disk, and that the file is a run") from None

"""Creation of the journal's tables, and the connection to its SQLite database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.disk_errors import disk_errors
from common.run_directory.journal_reader import is_locked
from common.run_directory.journal_tables import ADDED_TABLES, SCHEMA, check_known
from coordinator.storage.journal_lock import JournalLockedError, describe_lock

LOCK_TIMEOUT_S = 10.0
"""Seconds for which a statement waits for the lock of another process."""


def create_tables(db: sqlite3.Connection) -> None:
    """Create all tables of a new journal, in one transaction, with epoch 0."""
    added = " ".join(ADDED_TABLES)
    db.executescript(f"BEGIN; {SCHEMA} {added} INSERT INTO epoch VALUES (1, 0); COMMIT;")


def add_missing_tables(db: sqlite3.Connection, path: Path) -> None:
    """Create the tables that a journal of an older release lacks; refuse one of a newer release."""
    db.execute("SELECT value FROM epoch").fetchone()  # raises if the database is no journal
    check_known(db, path)
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
    """Raise `RunError` for errors of the database, and for those of its disk."""
    with disk_errors(path, "--resume"):
        try:
            yield
        except sqlite3.DatabaseError as error:
            if is_locked(error):
                raise JournalLockedError(*describe_lock(path)) from None
            raise

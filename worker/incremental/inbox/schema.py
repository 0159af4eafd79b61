"""Database file of one client's inbox: tables, states of an item, transactions, errors.

    STATE/inbox/<client>/inbox.db

Each client has one private SQLite file, which outlives runs. Items, the batches that tried to learn
them and the tensors that were learned share that file, so that one transaction changes all three: a
crash leaves either the old model with waiting items, or the new model with learned ones. `Inbox`
(`fccl learn`, `fccl try`, the HTTP endpoint) adds, retries and deletes items; everything else is
written by `LearningStore` in the worker that holds the client's lock.

An item is `waiting` until a worker takes it; then `learned` (part of the client's own model, but
not of an accepted update), `settled` (its update was accepted), `rejected` (by the gate or by a
validator, see `reason`), or `superseded` (a later item gives another answer to the same input).
Learned and settled items are part of the client's data from then on.

The names of tables, columns, states and roles are a file format: raise `SCHEMA_VERSION` and migrate
when they change.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.errors import DataError
from common.files import make_private

FILE = "inbox.db"
SCHEMA_VERSION = 1
ITEM_STATES = ("waiting", "learned", "settled", "rejected", "superseded")


class DiskFull(DataError):
    """The disk has no room for the items; none was stored."""


class InboxDamaged(DataError):
    """The file is no database any more."""


class InboxBusy(DataError):
    """Another process has kept the file locked for too long; nothing was stored."""


_NO_WRITE = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_FSYNC)

_TABLES = """
CREATE TABLE IF NOT EXISTS item (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never reused: a worker may be learning a deleted one
    key TEXT NOT NULL UNIQUE,       -- SHA-256 of kind and fields: identifies equal items
    input_key TEXT NOT NULL,        -- the same without the answer
    kind TEXT NOT NULL,             -- sft, va, kto, cls
    fields TEXT NOT NULL,           -- the row, as JSON
    task TEXT NOT NULL,             -- stream that it belongs to: a domain, a product, a ward
    source TEXT NOT NULL,           -- learn, try, http
    at REAL NOT NULL,               -- seconds since the epoch
    state TEXT NOT NULL DEFAULT 'waiting',
    held INTEGER NOT NULL DEFAULT 0,  -- 1: held out, used to measure, never to train
    batch INTEGER,                  -- the newest batch that tried to learn it
    reason TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX IF NOT EXISTS item_state ON item (state, id);
CREATE INDEX IF NOT EXISTS item_input ON item (input_key);
CREATE TABLE IF NOT EXISTS batch (
    id INTEGER PRIMARY KEY,
    run TEXT NOT NULL,
    version INTEGER NOT NULL,       -- global version on top of which it was learned
    kind TEXT NOT NULL,
    task TEXT NOT NULL,
    at REAL NOT NULL,
    items INTEGER NOT NULL,
    held INTEGER NOT NULL,
    steps INTEGER NOT NULL,
    seconds REAL NOT NULL,
    verdict TEXT NOT NULL,          -- accepted, rejected
    reason TEXT NOT NULL,
    ride TEXT NOT NULL DEFAULT '',  -- <task>.<attempt> of the update that carries it
    figures TEXT NOT NULL           -- JSON: before and after, on new items and anchors; the norm
) STRICT;
CREATE TABLE IF NOT EXISTS measure (
    batch INTEGER NOT NULL,
    task TEXT NOT NULL,             -- '': the client's own data
    loss REAL NOT NULL,
    accuracy REAL,
    examples INTEGER NOT NULL,
    PRIMARY KEY (batch, task)
) STRICT;
CREATE TABLE IF NOT EXISTS local (
    role TEXT PRIMARY KEY,          -- unsent, riding, personal: differences; current: a model
    run TEXT NOT NULL,
    version INTEGER NOT NULL,       -- global version that it belongs to
    ride TEXT NOT NULL DEFAULT '',  -- riding: <task>.<attempt> of the update that carries it
    tensors BLOB NOT NULL           -- safetensors
) STRICT;
"""


def inbox_path(state: Path, client_id: str) -> Path:
    """Return the path of a client's inbox; a client label is safe in a path."""
    return state / "inbox" / client_id / FILE


def connect(path: Path) -> sqlite3.Connection:
    """Open an inbox file, creating it if needed; only its owner can read it.

    The connection is in autocommit mode; transactions are begun explicitly. A committed transaction
    is on the disk when the commit returns.

    Raises:
        DataError: The file cannot be created or opened, or a newer fccl wrote it.
    """
    try:
        make_private(path.parent)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        db = sqlite3.connect(path, isolation_level=None, timeout=10)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        (found,) = db.execute("PRAGMA user_version").fetchone()
        if found > SCHEMA_VERSION:
            raise DataError(
                f"{path} was written by a newer fccl (format {found}; this one knows"
                f" {SCHEMA_VERSION})",
                "update fccl on this machine",
            )
        if found < SCHEMA_VERSION:
            db.executescript(
                f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
    except (OSError, sqlite3.Error) as error:
        raise translate(path, error) from None
    return db


class InboxFile:
    """An open inbox file, for use by one thread; raises `DataError` where SQLite fails."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = connect(path)

    def query(self, statement: str, *values: Any) -> list[Any]:
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise translate(self._path, error) from None

    def item_counts(self) -> dict[str, int]:
        """Return the number of items in each state, zero included."""
        counts = dict(self.query("SELECT state, count(*) FROM item GROUP BY state"))
        return {state: counts.get(state, 0) for state in ITEM_STATES}

    def change(self, statement: str, *values: Any) -> int:
        """Execute a statement and return the number of rows that it changed."""
        try:
            return self._db.execute(statement, values).rowcount
        except sqlite3.Error as error:
            raise translate(self._path, error) from None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the write lock from the beginning of the block; roll back on any exception."""
        self.change("BEGIN IMMEDIATE")
        try:
            yield
            self.change("COMMIT")
        finally:
            if self._db.in_transaction:  # SQLite may have rolled back already, as on a full disk
                self._db.rollback()

    def close(self) -> None:
        self._db.close()


def translate(path: Path, error: Exception) -> DataError:
    """Return the `DataError` that explains an error of the disk or of SQLite to the user."""
    text, code = str(error), getattr(error, "sqlite_errorcode", None)
    number = getattr(error, "errno", None)
    if code == sqlite3.SQLITE_FULL or number == errno.ENOSPC:
        return DiskFull(
            f"{path}: the disk is full, nothing was stored", "make room, then try again"
        )
    if code in _NO_WRITE or number in (errno.EDQUOT, errno.EFBIG):
        return DiskFull(
            f"{path}: the disk refused the write, nothing was stored",
            "check whether the disk is full or a quota is exceeded",
        )
    if code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return InboxBusy(f"{path} is locked by another process, nothing was stored", "try again")
    if code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return InboxDamaged(
            f"{path} cannot be used: {text}", "restore it from a backup, or remove it"
        )
    return DataError(
        f"{path} cannot be used: {text}", "check the owner and permissions of its folder"
    )

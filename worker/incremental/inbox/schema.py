"""The client's inbox on disk: one SQLite file, private, that outlives runs.

    STATE/inbox/<client>/inbox.db

Items, what was learned from them and the learned difference itself share one file, so that one
transaction moves all three: a crash leaves either the old model with waiting items, or the new
model with learned ones. Front doors (`fccl learn`, `fccl try`, the endpoint) only add items; the
worker that holds the client's lock does everything else.

An item is `waiting` until a worker takes it, then `learned` (in the client's own model, not yet in
an accepted update), `settled` (its update was accepted), `rejected` (the gate or a validator said
no, see `reason`), or `superseded` (a later item says something else about the same input). What is
learned or settled belongs to the client's data from then on.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

from common.errors import DataError

FILE = "inbox.db"
SCHEMA_VERSION = 1


class DiskFull(DataError):
    """There is no room for an item; none was taken."""


class InboxBusy(DataError):
    """Another process has held the file for too long; nothing was taken."""


_NO_WRITE = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_FSYNC)

_TABLES = """
CREATE TABLE IF NOT EXISTS item (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again: a worker may be learning one
    key TEXT NOT NULL UNIQUE,       -- SHA-256 of kind and fields: the same item counts once
    input_key TEXT NOT NULL,        -- the same of what is asked, without the answer
    kind TEXT NOT NULL,             -- sft, va, cls
    fields TEXT NOT NULL,           -- the row, as JSON
    task TEXT NOT NULL,             -- which stream it belongs to: a domain, a product, a ward
    source TEXT NOT NULL,           -- learn, try, http
    at REAL NOT NULL,               -- seconds since the epoch
    state TEXT NOT NULL DEFAULT 'waiting',
    held INTEGER NOT NULL DEFAULT 0,  -- 1: measures, is never trained on
    batch INTEGER,                  -- the newest that tried to learn it
    reason TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX IF NOT EXISTS item_state ON item (state, id);
CREATE INDEX IF NOT EXISTS item_input ON item (input_key);
CREATE TABLE IF NOT EXISTS batch (
    id INTEGER PRIMARY KEY,
    run TEXT NOT NULL,
    version INTEGER NOT NULL,       -- the global version that it was learned on
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
    task TEXT NOT NULL,             -- '' is the client's own data
    loss REAL NOT NULL,
    accuracy REAL,
    examples INTEGER NOT NULL,
    PRIMARY KEY (batch, task)
) STRICT;
CREATE TABLE IF NOT EXISTS local (
    role TEXT PRIMARY KEY,          -- unsent, riding, personal: differences; current: a model
    run TEXT NOT NULL,
    version INTEGER NOT NULL,       -- the global version that it belongs to
    ride TEXT NOT NULL DEFAULT '',  -- riding: <task>.<attempt> of the update that carries it
    tensors BLOB NOT NULL           -- safetensors
) STRICT;
"""


def inbox_path(state: Path, client_id: str) -> Path:
    """Where a client's inbox lies; a label is safe in a path."""
    return state / "inbox" / client_id / FILE


def connect(path: Path) -> sqlite3.Connection:
    """Open an inbox, made where there is none; only its owner can read it.

    Autocommit: transactions are opened by name. A commit is on the disk when it returns.

    Raises:
        DataError: The file cannot be made or opened, or a newer fccl wrote it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        db = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        (found,) = db.execute("PRAGMA user_version").fetchone()
        if found > SCHEMA_VERSION:
            raise DataError(
                f"{path} was written by a newer fccl (format {found}, here {SCHEMA_VERSION})",
                "update fccl on this machine",
            )
        if found < SCHEMA_VERSION:
            db.executescript(
                f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
    except (OSError, sqlite3.Error) as error:
        raise unusable(path, error) from None
    return db


def unusable(path: Path, error: Exception) -> DataError:
    """What an error of the disk or of SQLite means to whoever gave the item."""
    text, code = str(error), getattr(error, "sqlite_errorcode", None)
    number = getattr(error, "errno", None)
    if code == sqlite3.SQLITE_FULL or number == errno.ENOSPC:
        return DiskFull(f"{path}: the disk is full, nothing was taken", "make room, then again")
    if code in _NO_WRITE or number in (errno.EDQUOT, errno.EFBIG):
        return DiskFull(
            f"{path}: the disk does not take it, nothing was taken",
            "see whether it is full, or over a quota",
        )
    if "locked" in text:
        return InboxBusy(f"{path}: another process holds it, nothing was taken", "try again")
    return DataError(f"{path} cannot be used: {text}", "see its folder's owner and permissions")

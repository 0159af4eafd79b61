"""Tables and properties of a run's journal, `run.db`.

The coordinator creates and writes the tables (`coordinator/storage/journal_schema.py`); viewers and
later releases read them: add new ones to `ADDED_TABLES`, and change none. A journal that has more
than these was written by a newer release; its meaning is not known here, so nobody reads it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from common.errors import RunError

META_KEYS = frozenset(
    {
        "run_id", "software", "base", "clients", "labels", "sources", "adapter_config", "layout",
        "prompt", "start", "frozen",
    }
)  # fmt: skip
"""Properties that are fixed when a run begins (table `meta`)."""
REQUIRED_META = ("run_id", "base", "clients", "labels", "sources", "adapter_config")
"""Those of every run that is supported."""

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
ADDED_TABLES = (  # and indexes; missing from runs that an older release began
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
    # Updates that stay on the disk after their commit, and their files in `updates/`.
    "CREATE TABLE IF NOT EXISTS kept_update (task_id TEXT PRIMARY KEY, file TEXT NOT NULL);",
    # With kept updates: the seed of the noise of each version with differential privacy.
    "CREATE TABLE IF NOT EXISTS noise_seed (version INTEGER PRIMARY KEY, seed BLOB NOT NULL);",
    # With `schedule.adaptive_steps`: local steps of tasks, and what the last updates took.
    "CREATE TABLE IF NOT EXISTS task_steps (task_id TEXT PRIMARY KEY, steps INTEGER NOT NULL);",
    "CREATE TABLE IF NOT EXISTS client_pace (client_id TEXT PRIMARY KEY, paces TEXT NOT NULL);",
    # Processes that took the run over, for people: the epoch alone decides who may write.
    "CREATE TABLE IF NOT EXISTS coordinator (epoch INTEGER PRIMARY KEY, pid INTEGER NOT NULL,"
    " host TEXT NOT NULL, at REAL NOT NULL);",
    # Without these, every chunk and every commit would read the whole history of a run.
    "CREATE INDEX IF NOT EXISTS buffered ON accepted (seq) WHERE version IS NULL;",
    "CREATE INDEX IF NOT EXISTS evaluated ON evaluation (version, phase);",
)


def check_supported(meta: Mapping[str, str], directory: Path) -> None:
    """Raise `RunError` if a release began the run that is no longer supported."""
    if missing := [key for key in REQUIRED_META if key not in meta]:
        raise RunError(
            f"{directory} was begun by another release of fccl: its journal lacks {missing[0]}",
            "read and resume it with that release, or start over with --new",
        )


def check_known(db: sqlite3.Connection, path: Path) -> None:
    """Raise `RunError` if a journal has a table, a column or a property of a newer release."""
    known, unknown = _known_columns(), list[str]()
    for table, columns in _columns(db).items():
        if table not in known:
            unknown.append(f"table {table}")
        else:
            unknown += [f"column {name} of table {table}" for name in columns - known[table]]
    meta = dict(db.execute("SELECT key, value FROM meta"))
    unknown += [f"property {key}" for key in meta.keys() - META_KEYS]
    if unknown:
        raise RunError(
            f"{path} belongs to a newer release of fccl: it has the unknown {min(unknown)}",
            "upgrade fccl here",
        )


def _columns(db: sqlite3.Connection) -> dict[str, frozenset[str]]:
    """Return the columns of each table."""
    tables = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    query = "SELECT name FROM pragma_table_info(?)"
    return {
        table: frozenset(name for (name,) in db.execute(query, (table,)))
        for (table,) in tables
        if not table.startswith("sqlite_")
    }


@cache
def _known_columns() -> dict[str, frozenset[str]]:
    db = sqlite3.connect(":memory:")
    try:
        db.executescript(SCHEMA + " ".join(ADDED_TABLES))
        return _columns(db)
    finally:
        db.close()

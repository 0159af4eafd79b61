"""Who holds the lock of a journal.

SQLite's locks end with their process, so a journal that stays locked is held by one that was
stopped (SIGSTOP, a debugger, a frozen container) within a transaction, or by another program.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from common.clock import format_time
from common.errors import RunError

_LOCKS = Path("/proc/locks")
_WAL_WRITE_LOCK = 120  # byte of the -shm file that a writer locks; part of SQLite's file format
_STOPPED = ("T", "t")  # states of a stopped and of a traced process


class JournalLockedError(RunError):
    """Another process holds the journal."""


def describe_lock(path: Path) -> tuple[str, str]:
    """Return which process holds a journal, and what to do about it."""
    pid, owner = _find_holder(path), ""
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db,
    ):
        owner = read_owner(db, pid)
    if pid is None:
        last = f"; its last coordinator is {owner}" if owner else ""
        return f"{path} is locked by another process{last}", "end the process that holds it"
    stopped = ", which is stopped" if _state(pid) in _STOPPED else ""
    return (
        f"{path} is locked by {owner or f'process {pid}'}{stopped}",
        f"`kill -CONT {pid}` lets it go on, `kill -KILL {pid}` ends it without loss; then start"
        " again",
    )


def read_owner(db: sqlite3.Connection, pid: int | None = None) -> str:
    """Describe the process that took the run over last, or the one with this id.

    Empty if that is not known, as in a run of an earlier release.
    """
    query = "SELECT pid, host, at FROM coordinator WHERE ? IS NULL OR pid = ? ORDER BY epoch DESC"
    try:
        row = db.execute(query, (pid, pid)).fetchone()
    except sqlite3.OperationalError:  # no such table
        return ""
    if row is None:
        return ""
    return f"the coordinator with process id {row[0]} on {row[1]}, since {format_time(row[2])}"


def _find_holder(path: Path) -> int | None:
    """Return the process that writes to a journal; None if the system does not tell."""
    with suppress(OSError, ValueError):
        inode = path.with_name(f"{path.name}-shm").stat().st_ino
        return next((pid for number, pid in _write_locks() if number == inode and pid > 0), None)
    return None


def _write_locks() -> Iterator[tuple[int, int]]:
    """Yield inode and process of every lock of a journal's writer on this machine.

    The process is 0 if it is in another container.
    """
    for line in _LOCKS.read_text().splitlines():
        # 5: POSIX  ADVISORY  WRITE 4711 fd:01:1234 120 120
        _, _, _, kind, pid, file, start, end = line.split()[:8]
        if kind == "WRITE" and int(start) <= _WAL_WRITE_LOCK and end in ("EOF", start, "120"):
            yield int(file.rpartition(":")[2]), int(pid)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""

"""A client's inbox as the front doors use it: what is put is on the disk, once, or not at all.

Front doors (`fccl learn`, `fccl try`, HTTP) are processes and threads of their own, and several of
them write at once: each change is one transaction that holds SQLite's write lock from its first
look.
The limits of `[incremental]` are kept here, by what the file says, so that they hold over all of
them. The worker takes the items from the same file (`worker/incremental/inbox/schema.py`).
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.clock import Clock, wall_clock
from common.config.config import IncrementalConfig
from common.errors import DataError
from common.files import sync_path
from worker.incremental.inbox import schema
from worker.incremental.inbox.items import Item

STATES = ("waiting", "learned", "settled", "rejected", "superseded")
WINDOW_S = 60.0
_COLUMNS = "id, kind, fields, task, source, at, state, held, reason"
_CHUNK = 500  # ids in one statement: under the least that SQLite was ever built to take


class RateLimited(DataError):
    """More items came in a minute than a client may send.

    Attributes:
        wait_s: When there is room for them.
    """

    def __init__(self, limit: int, wait_s: float) -> None:
        self.wait_s = wait_s
        super().__init__(
            f"more than {limit} items in a minute (incremental.items_per_minute)",
            f"try again in {wait_s:.0f} s",
        )


class InboxFull(DataError):
    """So many items wait that no more are taken."""


class BatchTooLarge(InboxFull):
    """So many items at once never have room."""


@dataclass(frozen=True)
class PutResult:
    """What became of items that were put.

    Attributes:
        new: They wait now.
        known: They are there already, and are not learned twice.
        superseded: Earlier ones that said something else about the same input, or the same items
            before such a one; they are not learned any more.
        rejected: Those of the known ones that the gate or a validator had refused.
    """

    new: int = 0
    known: int = 0
    superseded: int = 0
    rejected: int = 0

    def __add__(self, other: PutResult) -> PutResult:
        return PutResult(
            self.new + other.new,
            self.known + other.known,
            self.superseded + other.superseded,
            self.rejected + other.rejected,
        )


@dataclass(frozen=True)
class StoredItem:
    """An item as it lies in the inbox; the columns of table `item`."""

    id: int
    item: Item
    source: str
    at: float
    state: str
    held: bool
    reason: str


class Inbox:
    """One client's. Methods may be called from any thread."""

    def __init__(self, path: Path, limits: IncrementalConfig, clock: Clock = wall_clock) -> None:
        """Open it, made where there is none.

        Args:
            path: Of `schema.inbox_path`.
            limits: How much it takes.
            clock: Seconds since the epoch.

        Raises:
            DataError: The file cannot be made or opened.
        """
        self._path, self._limits, self._clock = path, limits, clock
        self._lock = threading.Lock()
        made = not path.exists()
        self._db = schema.connect(path)
        try:
            self._db.execute("PRAGMA secure_delete = ON")  # what is forgotten leaves no bytes
            if made:
                sync_path(path.parent.parent)  # SQLite sees to the folder itself
        except (OSError, sqlite3.Error) as error:
            self._db.close()
            raise schema.unusable(path, error) from None

    def put(self, items: Sequence[Item], source: str) -> PutResult:
        """Take items, all of them or none; they are on the disk when this returns.

        Args:
            items: Of this client, in the order in which they were said: the last word counts.
            source: Through which door: learn, try, http.

        Raises:
            Flooded: Too many in a minute; none was taken.
            Full: Too many wait; none was taken.
            DataError: The disk is full, or the file cannot be used; none was taken.
        """
        return sum(self.put_each(items, source), PutResult())

    def put_each(self, items: Sequence[Item], source: str) -> tuple[PutResult, ...]:
        """As `put`, all of them or none; what became of each, in their order."""
        now = self._clock()
        with self._write() as db:
            taken = tuple(_put(db, item, source, now) for item in items)
            if new := sum(each.new for each in taken):
                self._check(db, new, now)
        return taken

    def counts(self) -> dict[str, int]:
        """How many items are in which state; every state is named."""
        with self._read() as db:
            found = dict(db.execute("SELECT state, count(*) FROM item GROUP BY state").fetchall())
        return {state: found.get(state, 0) for state in STATES}

    def reasons(self, limit: int = 10) -> dict[str, int]:
        """Why items were rejected, and how many, the newest first."""
        with self._read() as db:
            return dict(
                db.execute(
                    "SELECT reason, count(*) FROM item WHERE state = 'rejected'"
                    " GROUP BY reason ORDER BY max(id) DESC LIMIT ?",
                    (limit,),
                ).fetchall()
            )

    def items(
        self, state: str | None = None, limit: int | None = None, *, newest: bool = False
    ) -> tuple[StoredItem, ...]:
        """Items in the order of their coming.

        Args:
            state: Only those; None for all.
            limit: At most so many; None for all.
            newest: Begin with the last.
        """
        where = "" if state is None else "WHERE state = ?"
        order = "DESC" if newest else "ASC"
        values = ([] if state is None else [state]) + [-1 if limit is None else limit]
        with self._read() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM item {where} ORDER BY id {order} LIMIT ?", values
            ).fetchall()
        return tuple(_stored(row) for row in rows)

    def retry(self, ids: Sequence[int] | None = None) -> int:
        """Let rejected items wait again: those, or all; returns how many there were.

        Raises:
            Full: Too many would wait; none does.
            DataError: The file cannot be used.
        """
        with self._write() as db:
            statement = "UPDATE item SET state = 'waiting', reason = '' WHERE state = 'rejected'"
            changed = _change(db, statement, ids)
            self._check_waiting(db, changed)
        return changed

    def forget(self, ids: Sequence[int] | None = None) -> int:
        """Remove items, those or all, in whatever state, from the file's bytes too.

        What a model has learned from them it keeps. Returns how many there were.

        Raises:
            DataError: The file cannot be used.
        """
        with self._write() as db:
            changed = _change(db, "DELETE FROM item WHERE true", ids)
        # The log has the pages as they were. With a reader in the way, the next checkpoint does it.
        with self._read() as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return changed

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Inbox:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _check(self, db: sqlite3.Connection, new: int, now: float) -> None:
        """Whether so many new ones, which are in the table already, are within the limits."""
        limit = self._limits.items_per_minute
        if new > limit:
            raise BatchTooLarge(
                f"{new} items at once, more than {limit} (incremental.items_per_minute)",
                "send fewer at a time",
            )
        # The row before the newest `limit` must be older than the window. One of a later time than
        # now is from before the clock was set back; it says nothing.
        row = db.execute("SELECT at FROM item ORDER BY id DESC LIMIT 1 OFFSET ?", (limit,))
        (at,) = row.fetchone() or (now - WINDOW_S,)
        if now - WINDOW_S < at <= now:
            raise RateLimited(limit, at + WINDOW_S - now)
        self._check_waiting(db, new)

    def _check_waiting(self, db: sqlite3.Connection, new: int) -> None:
        limit = self._limits.max_waiting
        (waiting,) = db.execute("SELECT count(*) FROM item WHERE state = 'waiting'").fetchone()
        if new and waiting > limit:
            raise InboxFull(
                f"{waiting} items would wait, and {limit} may at most (incremental.max_waiting)",
                "a running `fccl worker` learns them",
            )

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that holds the write lock from its beginning; undone by any error."""
        with self._read() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:  # SQLite itself may have undone it, as on a full disk
                    db.execute("ROLLBACK")

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except sqlite3.Error as error:
                raise schema.unusable(self._path, error) from None


def _put(db: sqlite3.Connection, item: Item, source: str, now: float) -> PutResult:
    """Insert one item, unless it is there and still holds."""
    key, asked = item.key, item.input_key
    found = db.execute("SELECT state FROM item WHERE key = ?", (key,)).fetchone()
    if found is not None and found[0] != "superseded":
        return PutResult(known=1, rejected=int(found[0] == "rejected"))
    # Said again after something else was said: it is the last word, and comes in as if new.
    db.execute("DELETE FROM item WHERE key = ?", (key,))
    replaced = db.execute(
        "UPDATE item SET state = 'superseded' WHERE input_key = ? AND state != 'superseded'",
        (asked,),
    ).rowcount
    db.execute(
        "INSERT INTO item (key, input_key, kind, fields, task, source, at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (key, asked, item.kind, _json(item.fields), item.task, source, now),
    )
    return PutResult(new=1, superseded=replaced)


def _change(db: sqlite3.Connection, statement: str, ids: Sequence[int] | None) -> int:
    if ids is None:
        return db.execute(statement).rowcount
    changed = 0
    for start in range(0, len(ids), _CHUNK):
        some = ids[start : start + _CHUNK]
        marks = ", ".join("?" * len(some))
        changed += db.execute(f"{statement} AND id IN ({marks})", some).rowcount
    return changed


def _stored(row: Sequence[object]) -> StoredItem:
    number, kind, fields, task, source, at, state, held, reason = row
    item = Item(kind, json.loads(str(fields)), str(task))  # type: ignore[arg-type]
    return StoredItem(number, item, source, at, state, bool(held), reason)  # type: ignore[arg-type]


def _json(fields: Mapping[str, str]) -> str:
    return json.dumps(dict(fields), ensure_ascii=False)

"""Inbox of one client, as the commands and the HTTP endpoint use it: store, list, retry, delete.

`fccl learn`, `fccl try` and the endpoint are separate processes and threads that write at the same
time. Each change is one transaction that takes SQLite's write lock before it reads, so items are
stored once or not at all, and the limits of `[incremental]` hold over all writers together. The
worker takes the items from the same file (`worker/incremental/inbox/learning_store.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.clock import Clock, wall_clock
from common.config.config import IncrementalConfig
from common.errors import DataError
from common.files import sync_path
from worker.incremental.inbox import schema
from worker.incremental.inbox.items import Item, StoredItem
from worker.incremental.inbox.schema import InboxFile

WINDOW_S = 60.0
_IDS_PER_STATEMENT = 500  # below the smallest limit on parameters that SQLite was ever built with


ResultState = Literal["accepted", "duplicate", "refused"]


class RateLimited(DataError):
    """More items arrived within a minute than a client may send."""

    def __init__(self, limit: int, wait_s: float) -> None:
        self.wait_s = wait_s  # until there is room for them
        super().__init__(
            f"more than {limit} items in a minute (incremental.items_per_minute)",
            f"try again in {wait_s:.0f} s",
        )


class InboxFull(DataError):
    """As many items are waiting as the inbox may hold."""


class BatchTooLarge(InboxFull):
    """There are more items in one call than the rate limit could ever admit."""


@dataclass(frozen=True)
class PutResult:
    """Numbers of items after storing some."""

    new: int = 0  # waiting now
    known: int = 0  # in the inbox already; they are not learned twice
    superseded: int = 0  # earlier ones with another answer to an input; no longer learned
    rejected: int = 0  # those of the known ones that the gate or a validator had rejected

    def __add__(self, other: PutResult) -> PutResult:
        return PutResult(
            self.new + other.new,
            self.known + other.known,
            self.superseded + other.superseded,
            self.rejected + other.rejected,
        )


@dataclass(frozen=True)
class ItemResult:
    """Outcome of one item for its sender: it is on the disk, was there already, or is refused."""

    state: ResultState
    reason: str = ""  # of a refusal, or a remark on a duplicate; never contains the text


def item_results(
    parsed: Sequence[Item | DataError], stored: Sequence[PutResult]
) -> list[ItemResult]:
    """Return the outcome of each item: `stored` has the results of those that are valid."""
    rest = iter(stored)
    results = []
    for found in parsed:
        if isinstance(found, DataError):
            results.append(ItemResult("refused", str(found)))
        elif (result := next(rest)).new:
            results.append(ItemResult("accepted"))
        else:
            reason = "it was rejected before" if result.rejected else ""
            results.append(ItemResult("duplicate", reason))
    return results


@dataclass(frozen=True)
class ItemStatus:
    """State of one item, with the reason if it was rejected."""

    state: str
    reason: str

    @property
    def decided(self) -> bool:
        return self.state != "waiting"

    @property
    def learned(self) -> bool:
        return self.state in ("learned", "settled")


class Inbox:
    """Open inbox of one client, for use by one thread."""

    def __init__(self, path: Path, limits: IncrementalConfig, clock: Clock = wall_clock) -> None:
        """Open the file, creating it if needed."""
        self._limits, self._clock = limits, clock
        created = not path.exists()
        self._file = InboxFile(path)
        try:
            self._file.query("PRAGMA secure_delete = ON")  # deleted items leave no bytes behind
            if created:
                sync_path(path.parent.parent)  # SQLite syncs only the folder of the file
        except OSError as error:
            self._file.close()
            raise schema.translate(path, error) from None

    def put(self, items: Sequence[Item], source: str) -> PutResult:
        """Store items, all or none, and return the totals; see `put_each`."""
        return sum(self.put_each(items, source), PutResult())

    def put_each(self, items: Sequence[Item], source: str) -> tuple[PutResult, ...]:
        """Store items, all or none, and return one result for each; they are then on the disk.

        Of several answers to one input the last counts.

        Raises:
            RateLimited: There are too many items within a minute.
            InboxFull: Too many items would be waiting.
            DataError: The disk is full, or the file cannot be used.
        """
        now = self._clock()
        with self._file.transaction():
            results = tuple(self._put(item, source, now) for item in items)
            if new := sum(each.new for each in results):
                self._check_rate(new, now)
                self._check_waiting()
        return results

    def counts(self) -> dict[str, int]:
        return self._file.item_counts()

    def items(
        self, state: str | None = None, limit: int | None = None, *, newest_first: bool = False
    ) -> tuple[StoredItem, ...]:
        """Return items in the order of their arrival, or the newest first."""
        where, values = ("", []) if state is None else ("WHERE state = ?", [state])
        order = "DESC" if newest_first else "ASC"
        rows = self._file.query(
            f"SELECT {StoredItem.COLUMNS} FROM item {where} ORDER BY id {order} LIMIT ?",
            *(*values, -1 if limit is None else limit),
        )
        return tuple(StoredItem.from_row(row) for row in rows)

    def status(self, item: Item) -> ItemStatus | None:
        """Return the status of an item; None if it is not (or no longer) in the inbox."""
        rows = self._file.query("SELECT state, reason FROM item WHERE key = ?", item.key)
        return ItemStatus(*rows[0]) if rows else None

    def retry(self, ids: Sequence[int] | None = None) -> int:
        """Let rejected items wait again, these or all, and return how many there were.

        Raises:
            InboxFull: Too many items would be waiting; nothing is changed.
        """
        with self._file.transaction():
            changed = self._change(
                "UPDATE item SET state = 'waiting', reason = '' WHERE state = 'rejected'", ids
            )
            if changed:
                self._check_waiting()
        return changed

    def forget(self, ids: Sequence[int] | None = None) -> int:
        """Delete items, these or all, and return how many there were; their bytes are erased.

        A model that has learned from an item keeps what it learned.
        """
        with self._file.transaction():
            changed = self._change("DELETE FROM item WHERE true", ids)
        # The WAL still has the old pages. If a reader blocks this, the next checkpoint erases them.
        self._file.query("PRAGMA wal_checkpoint(TRUNCATE)")
        return changed

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Inbox:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _put(self, item: Item, source: str, now: float) -> PutResult:
        """Insert an item, unless it is there and has not been superseded."""
        key, input_key = item.key, item.input_key
        found = self.status(item)
        if found is not None and found.state != "superseded":
            return PutResult(known=1, rejected=int(found.state == "rejected"))
        # A superseded answer that is given again is the last word, and arrives as if it were new.
        self._file.change("DELETE FROM item WHERE key = ?", key)
        replaced = self._file.change(
            "UPDATE item SET state = 'superseded' WHERE input_key = ? AND state != 'superseded'",
            input_key,
        )
        fields = json.dumps(dict(item.fields), ensure_ascii=False)
        self._file.change(
            "INSERT INTO item (key, input_key, kind, fields, task, source, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            *(key, input_key, item.kind, fields, item.task, source, now),
        )
        return PutResult(new=1, superseded=replaced)

    def _change(self, statement: str, ids: Sequence[int] | None) -> int:
        if ids is None:
            return self._file.change(statement)
        changed = 0
        for start in range(0, len(ids), _IDS_PER_STATEMENT):
            some = ids[start : start + _IDS_PER_STATEMENT]
            marks = ", ".join("?" * len(some))
            changed += self._file.change(f"{statement} AND id IN ({marks})", *some)
        return changed

    def _check_rate(self, new: int, now: float) -> None:
        """Check the rate limit after `new` items have been inserted."""
        limit = self._limits.items_per_minute
        if new > limit:
            raise BatchTooLarge(
                f"{new} items at once, more than {limit} (incremental.items_per_minute)",
                "send fewer at a time",
            )
        # The item before the newest `limit` must have left the window. A time in the future was
        # written before the clock was set back, and says nothing.
        rows = self._file.query("SELECT at FROM item ORDER BY id DESC LIMIT 1 OFFSET ?", limit)
        at = rows[0][0] if rows else now - WINDOW_S
        if now - WINDOW_S < at <= now:
            raise RateLimited(limit, at + WINDOW_S - now)

    def _check_waiting(self) -> None:
        limit = self._limits.max_waiting
        [(waiting,)] = self._file.query("SELECT count(*) FROM item WHERE state = 'waiting'")
        if waiting > limit:
            raise InboxFull(
                f"{waiting} items would be waiting; the limit is {limit} (incremental.max_waiting)",
                "let a running `fccl worker` learn them first",
            )

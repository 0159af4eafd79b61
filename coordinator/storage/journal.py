"""Journal of a run: a SQLite database, and the single source of truth about the run.

Every write is one transaction (BEGIN IMMEDIATE, WAL, synchronous FULL) that first checks the
coordinator's epoch. A coordinator that was paused and replaced finds a newer epoch, and can then
write, publish and ack nothing: tasks are published only from the outbox, and messages acked only
after a transaction. docs/protocol.md has the order of writes and the outcome of every crash.

On an update's path the journal records the decision; next is
`coordinator/publish/store_publisher.py`.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import ValidationError

from common.config.config import PhaseConfig
from common.errors import FencedError, RunError
from common.protocol.commands import CommandReply
from common.protocol.feed import Event
from common.protocol.naming import LOCAL_SITE
from common.protocol.tasks import Receipt
from common.protocol.updates import ContributionStats
from common.protocol.versions import VersionSummary
from common.run_directory import journal_reader
from common.run_directory.records import EvaluationRecord, RoundRecord
from coordinator.core.events import Action
from coordinator.core.state import BufferedUpdate, Client, CoordinatorState
from coordinator.storage import journal_rows
from coordinator.storage.journal_lock import JournalLockedError, read_owner
from coordinator.storage.journal_schema import (
    LOCK_TIMEOUT_S,
    add_missing_tables,
    connect,
    create_tables,
    translated_errors,
)
from coordinator.storage.journal_totals import JournalTotals

KNOWN_VERSIONS = 64
"""Summaries of versions that stay in memory: those that tasks name are read again and again."""

TRY_S = 1.0
"""Seconds between two attempts to take over a journal that another process holds."""

_RECEIPTS = (
    "SELECT client_id, task_id, attempt, state, reason, at FROM receipt"
    " LEFT JOIN task USING (task_id)"
    " UNION ALL SELECT client_id, task_id, attempt,"
    " CASE state WHEN 'accepted' THEN state ELSE 'rejected' END, reason, at FROM evaluation"
    " WHERE state <> 'open'"
)


@dataclass(frozen=True)
class Outgoing:
    """Task message that the broker has not confirmed yet."""

    id: int
    site: str
    task_id: str
    frame: bytes


class Journal:
    """Database of one run, used by one coordinator.

    Every method raises `RunError` if the disk refuses, and every method that writes raises
    `FencedError`, without writing, if another coordinator has taken over.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self._path = path
        self._totals = JournalTotals(self.rows)
        self._summaries: OrderedDict[int, VersionSummary] = OrderedDict()
        self.epoch = 0

    @classmethod
    def create(cls, path: Path, meta: Mapping[str, str]) -> Journal:
        """Create a journal; `meta` never changes afterwards."""
        with translated_errors(path):
            journal = cls(connect(path), path)
            create_tables(journal._db)
            with journal._transaction():
                journal._db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        return journal

    @classmethod
    def open(cls, path: Path, *, durable: bool = True) -> Journal:
        """Open an existing journal; without `durable` a power failure may damage it.

        Raises:
            RunError: The file does not exist or is no journal.
        """
        if not path.exists():
            raise RunError(f"{path} does not exist", "name a run directory, or start with --new")
        with translated_errors(path):
            journal = cls(connect(path), path)
            add_missing_tables(journal._db, path)
            if not durable:
                journal._db.execute("PRAGMA synchronous = OFF")
        return journal

    def close(self) -> None:
        self._db.close()

    def meta(self) -> dict[str, str]:
        """Return the properties that were fixed when the run began."""
        return dict(self.rows("SELECT key, value FROM meta"))

    def take_over(
        self, keep_trying: Callable[[JournalLockedError], bool] = lambda error: False
    ) -> int:
        """Begin a new epoch and return it; it fences off every other coordinator of this run.

        A coordinator that was stopped within a transaction holds the journal until it continues or
        ends. Nothing else may write meanwhile: what it has decided, it may already make visible.

        Args:
            keep_trying: Called about every second while another process holds the journal.

        Raises:
            JournalLockedError: `keep_trying` returned False; the message names that process.
        """
        self._wait_for_locks(TRY_S)
        try:
            while not self._try_take_over(keep_trying):
                pass
        finally:
            self._wait_for_locks(LOCK_TIMEOUT_S)
        return self.epoch

    def _wait_for_locks(self, seconds: float) -> None:
        with translated_errors(self._path):
            self._db.execute(f"PRAGMA busy_timeout = {seconds * 1000:.0f}")

    def _try_take_over(self, keep_trying: Callable[[JournalLockedError], bool]) -> bool:
        try:
            self._begin_epoch()
        except JournalLockedError as error:
            if not keep_trying(error):
                raise
            return False
        return True

    def _begin_epoch(self) -> None:
        with translated_errors(self._path), self._immediate():
            self._db.execute("UPDATE epoch SET value = value + 1")
            epoch = self._db.execute("SELECT value FROM epoch").fetchone()[0]
            row = (epoch, os.getpid(), socket.gethostname(), time.time())
            self._db.execute("INSERT OR REPLACE INTO coordinator VALUES (?, ?, ?, ?)", row)
        self.epoch = epoch

    # writing

    def write(
        self,
        before: CoordinatorState,
        after: CoordinatorState,
        actions: Sequence[Action],
        now: float,
        *,
        frames: Mapping[str, bytes],
        summaries: Mapping[int, VersionSummary],
        drop_chunks: Sequence[str] = (),
        keep_updates: bool = False,
        drop_updates: Sequence[BufferedUpdate] = (),
        noise_seeds: Mapping[int, bytes] = MappingProxyType({}),
    ) -> None:
        """Record everything that one step changed, in one transaction.

        Args:
            before: State before the step.
            after: State after the step.
            actions: Actions of the step.
            now: Seconds since the epoch.
            frames: Task message of each `IssueTask` and `IssueEvaluation`, by task id.
            summaries: Summary of each `CommitVersion`, by version. Its files are staged.
            drop_chunks: Uploads that are complete or rejected with this step.
            keep_updates: Whether the files of the updates of new versions stay; if so, the seeds
                of their noise stay, too.
            drop_updates: Updates whose files stay no longer.
            noise_seeds: Seed of the noise of each `CommitVersion` with differential privacy.
        """
        with self._transaction():
            for action in actions:
                journal_rows.write_action(self._db, action, now, self.epoch, frames, summaries)
            for client_id in after.clients.changes_since(before.clients)[0]:
                client = after.clients[client_id]
                journal_rows.put_client(self._db, client_id, client)
                if client.paces != before.client(client_id).paces:
                    journal_rows.put_paces(self._db, client_id, client.paces)
            if keep_updates:
                journal_rows.put_kept_updates(self._db, actions)
                journal_rows.put_noise_seeds(self._db, noise_seeds)
            dropped = [(update.task_id,) for update in drop_updates]
            self._db.executemany("DELETE FROM kept_update WHERE task_id = ?", dropped)
            self._db.executemany("DELETE FROM chunk WHERE upload = ?", [(u,) for u in drop_chunks])

    def put_version(self, summary: VersionSummary) -> None:
        """Record version 0, which no step has made."""
        with self._transaction():
            journal_rows.put_version(self._db, summary)

    def put_chunk(self, upload: str, i: int, nbytes: int, site: str, now: float) -> int:
        """Record a durable chunk, once, and return the number of chunks of its upload."""
        with self._transaction():
            row = (upload, i, nbytes, site, now)
            self._db.execute("INSERT OR IGNORE INTO chunk VALUES (?, ?, ?, ?, ?)", row)
        return int(self._one("SELECT COUNT(*) FROM chunk WHERE upload = ?", upload))

    def drop_chunks(self, upload: str) -> None:
        """Remove the rows of an upload that will never be complete."""
        with self._transaction():
            self._db.execute("DELETE FROM chunk WHERE upload = ?", (upload,))

    def mark_sent(self, ids: Sequence[int]) -> None:
        """Remove outbox entries that the broker has confirmed."""
        with self._transaction():
            self._db.executemany("DELETE FROM outbox WHERE id = ?", [(i,) for i in ids])

    @contextmanager
    def fenced(self) -> Iterator[None]:
        """Keep other coordinators from taking over while files are changed to match the rows."""
        with self._transaction():
            yield

    # reading

    def outbox(self) -> list[Outgoing]:
        """Return the task messages to publish, oldest first."""
        rows = self.rows("SELECT id, site, task_id, frame FROM outbox ORDER BY id")
        return [Outgoing(*row) for row in rows]

    def receipt(self, task_id: str) -> Receipt | None:
        """Return the receipt of a task or an evaluation; None while it is open."""
        query = f"SELECT task_id, attempt, state, reason FROM ({_RECEIPTS}) WHERE task_id = ?"
        return next((_receipt(row) for row in self.rows(query, task_id)), None)

    def receipts(self, limit: int) -> list[tuple[str, Receipt]]:
        """Return the newest receipts, each with the site of its client."""
        query = (
            "SELECT client_id, task_id, attempt, state, reason"
            f" FROM ({_RECEIPTS}) ORDER BY at DESC LIMIT ?"
        )
        sites = {client.client_id: client.site for client in self.joined_clients(include_left=True)}
        rows = self.rows(query, limit)
        return [(sites.get(client, LOCAL_SITE), _receipt(row)) for client, *row in rows]

    def command_reply(self, command_id: str) -> CommandReply | None:
        """Return the reply to a command; None if it has none yet."""
        query = "SELECT refused FROM command WHERE command_id = ?"
        for (refused,) in self.rows(query, command_id):
            state: Literal["done", "refused"] = "refused" if refused else "done"
            return CommandReply(command_id=command_id, state=state, reason=refused)
        return None

    def paused(self) -> bool:
        query = "SELECT paused FROM command WHERE paused IS NOT NULL ORDER BY rowid DESC LIMIT 1"
        return any(paused for (paused,) in self.rows(query))

    def min_clients(self) -> int | None:
        """Return the minimum of live clients that an operator set last; None if none did."""
        query = (
            "SELECT target FROM command WHERE action = 'min-clients' AND refused = ''"
            " ORDER BY rowid DESC LIMIT 1"
        )
        return next((int(target) for (target,) in self.rows(query)), None)

    def site_of(self, task_id: str) -> str:
        """Return the site of a task or an evaluation."""
        query = (
            "SELECT site FROM task JOIN member USING (client_id) WHERE task_id = ?"
            " UNION SELECT site FROM evaluation WHERE task_id = ?"
        )
        return next((site for (site,) in self.rows(query, task_id, task_id)), LOCAL_SITE)

    def joined_clients(self, *, include_left: bool = False) -> list[Client]:
        """Return the clients that have joined, oldest first."""
        query = (
            "SELECT client_id, site, rows, COALESCE(shares_updates, 0) FROM member"
            " LEFT JOIN sharing USING (client_id) WHERE left <= ? ORDER BY member.rowid"
        )
        return [
            Client(client, site, MappingProxyType(json.loads(rows)), bool(shares))
            for client, site, rows, shares in self.rows(query, int(include_left))
        ]

    def version(self, number: int) -> VersionSummary:
        """Return the summary of a version."""
        if number in self._summaries:
            self._summaries.move_to_end(number)
            return self._summaries[number]
        [summary] = self._parsed("SELECT summary FROM version WHERE version = ?", number)
        self._summaries[number] = summary
        if len(self._summaries) > KNOWN_VERSIONS:
            self._summaries.popitem(last=False)
        return summary

    def newest_version(self) -> VersionSummary:
        return self.version(self._one("SELECT MAX(version) FROM version"))

    def versions(self, after: int = -1) -> list[VersionSummary]:
        """Return the summaries of the versions after `after`, oldest first."""
        return list(self.each_version(after))

    def each_version(self, after: int = -1) -> Iterator[VersionSummary]:
        """Yield the summaries of the versions after `after`, oldest first, one in memory."""
        query = "SELECT summary FROM version WHERE version > ? ORDER BY version"
        return self._parsed(query, after)

    def version_digests(self) -> dict[int, str]:
        """Return the SHA-256 of the broadcast frame of every version."""
        return dict(self.rows("SELECT version, json_extract(summary, '$.sha256') FROM version"))

    def events(self, limit: int) -> list[Event]:
        """Return the newest entries of the event feed, oldest first."""
        query = "SELECT at, level, kind, text, refs FROM event ORDER BY id DESC LIMIT ?"
        return [
            Event(at=at, level=level, kind=kind, text=text, refs=json.loads(refs))
            for at, level, kind, text, refs in reversed(self.rows(query, limit))
        ]

    def last_accepted(self) -> float:
        """Return the time of the newest accepted update; 0 if there is none."""
        rows = self.rows("SELECT at FROM accepted ORDER BY seq DESC LIMIT 1")
        return float(rows[0][0]) if rows else 0.0

    def unfinished_uploads(self) -> dict[str, tuple[str, float]]:
        """Return site and time of the first chunk of every unfinished upload."""
        query = "SELECT upload, site, MIN(at) FROM chunk GROUP BY upload"
        return {upload: (site, at) for upload, site, at in self.rows(query)}

    def unapplied_uploads(self) -> set[str]:
        """Return the uploads that are accepted but not applied yet; their files must stay."""
        return {u for (u,) in self.rows("SELECT upload FROM accepted WHERE version IS NULL")}

    def applied_updates(self) -> Iterator[tuple[int, int, BufferedUpdate]]:
        """Yield version, phase and update of those that were applied and kept, oldest first."""
        query = (
            "SELECT version, phase, task_id, attempt, a.client_id, worker_id, base_version, stats,"
            " clip, nbytes, upload FROM accepted a JOIN task USING (task_id)"
            " JOIN kept_update USING (task_id) WHERE version IS NOT NULL ORDER BY version, seq"
        )
        for version, phase, *values in self.rows(query):
            task, attempt, client, worker, base, stats, clip, nbytes, upload = values
            parsed = ContributionStats.model_validate_json(stats)
            update = BufferedUpdate(
                *(task, attempt, client, worker, base, parsed, clip, nbytes, upload)
            )
            yield version, phase, update

    def kept_updates(self) -> dict[str, str]:
        """Return the uploads that stay after their commit, with their files in `updates/`."""
        return dict(self.rows("SELECT upload, file FROM accepted JOIN kept_update USING (task_id)"))

    def receipt_counts(self) -> dict[str, int]:
        """Return how many training tasks were closed, by state of the receipt."""
        return self._totals.receipt_counts()

    def evaluations(
        self, phases: Sequence[PhaseConfig], of: tuple[int, int] | None = None
    ) -> tuple[EvaluationRecord, ...]:
        """Return the clients' accepted evaluations of versions, oldest first.

        `of` limits them to those of one version with one phase.
        """
        with translated_errors(self._path):
            return journal_reader.read_evaluations(self._db, phases, of)

    def evaluation_rounds(self, of: tuple[int, int] | None = None) -> tuple[RoundRecord, ...]:
        """Return the evaluations of versions that became due, oldest first; `of` limits them."""
        with translated_errors(self._path):
            return journal_reader.read_rounds(self._db, self._totals.first_issues(), of)

    def score_cost(self) -> tuple[int, float, int]:
        """Return number, computing seconds and bytes of all scores of updates."""
        return self._totals.score_cost()

    def check_epoch(self) -> None:
        """Raise `FencedError` if another coordinator has taken over."""
        current = self._one("SELECT value FROM epoch")
        if current != self.epoch:
            owner = read_owner(self._db)
            raise FencedError(
                f"another coordinator has taken over {self._path}"
                f" (epoch {current}{f': {owner}' if owner else ''})",
                "stop this one",
            )

    def rows(self, query: str, *values: object) -> list[Any]:
        """Return the rows of a query; `coordinator/storage/recovery.py` has its own queries."""
        with translated_errors(self._path):
            return self._db.execute(query, values).fetchall()

    def _parsed(self, query: str, *values: object) -> Iterator[VersionSummary]:
        with translated_errors(self._path):
            for (summary,) in self._db.execute(query, values):
                try:
                    yield VersionSummary.model_validate_json(summary)
                except ValidationError as error:
                    raise RunError(
                        f"{self._path} was written by another release of fccl: {error.title}"
                        " differs",
                        "resume the run with that release, or start over with --new",
                    ) from None

    def _one(self, query: str, *values: object) -> Any:
        return self.rows(query, *values)[0][0]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with translated_errors(self._path), self._immediate():
            self.check_epoch()
            yield

    @contextmanager
    def _immediate(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._db.rollback()
            raise


def _receipt(row: Sequence[Any]) -> Receipt:
    task_id, attempt, state, reason = row
    return Receipt(task_id=task_id, attempt=attempt, state=state, reason=reason)

"""The journal: SQLite, and the only truth about a run.

Every write is one transaction (BEGIN IMMEDIATE, WAL, synchronous FULL) that first checks the
coordinator's epoch. A coordinator that was paused and replaced finds a newer epoch and can write,
publish and ack nothing: publishing happens only from the outbox, acks only after a transaction.
docs/protocol.md has the order of writes and what each crash leaves.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from broker.protocol import LOCAL
from common.errors import FencedError, RunError
from common.protocol.commands import CommandReply
from common.protocol.feed import Event
from common.protocol.tasks import Receipt
from common.protocol.versions import VersionSummary
from coordinator.core.events import (
    AcceptUpdate,
    Action,
    AdmitClient,
    CloseTask,
    CommitVersion,
    DismissClient,
    IssueTask,
    LogEvent,
    ReplyToCommand,
)
from coordinator.core.state import Client, ClientState, CoordinatorState

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
LATER = (  # tables that a run may lack which an older version began
    "CREATE TABLE IF NOT EXISTS member (client_id TEXT PRIMARY KEY, site TEXT NOT NULL,"
    " rows TEXT NOT NULL, left INTEGER NOT NULL);",
    "CREATE TABLE IF NOT EXISTS command (command_id TEXT PRIMARY KEY, action TEXT NOT NULL,"
    " target TEXT NOT NULL, by TEXT NOT NULL, at REAL NOT NULL, refused TEXT NOT NULL,"
    " paused INTEGER);",
)

MAX_EVENTS = 50_000  # a flood of rejected messages must not grow the journal without end


@dataclass(frozen=True)
class Outgoing:
    """A task message that the broker has not confirmed yet."""

    id: int
    site: str
    task_id: str
    frame: bytes


class Journal:
    """One run's database, as seen by one coordinator."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self._path = path
        self.epoch = 0

    @classmethod
    def create(cls, path: Path, meta: Mapping[str, str]) -> Journal:
        """A new journal; `meta` is fixed for the run.

        Raises:
            RunError: The file cannot be written.
        """
        with _translated(path):
            journal = cls(_connect(path), path)
            tables = " ".join(LATER)
            journal._db.executescript(
                f"BEGIN; {SCHEMA} {tables} INSERT INTO epoch VALUES (1, 0); COMMIT;"
            )
            with journal._transaction():
                journal._db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        return journal

    @classmethod
    def open(cls, path: Path) -> Journal:
        """An existing journal.

        Raises:
            RunError: There is none, or the file is no journal.
        """
        if not path.exists():
            raise RunError(f"{path} does not exist", "name a run directory, or start with --new")
        with _translated(path):
            journal = cls(_connect(path), path)
            journal._db.execute("SELECT value FROM epoch").fetchone()
            for table in LATER:
                journal._db.execute(table)
        return journal

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def meta(self) -> dict[str, str]:
        """What was fixed when the run began."""
        return dict(self.rows("SELECT key, value FROM meta"))

    def take_over(self) -> int:
        """Begin a new epoch: from now on every other coordinator of this run is fenced off."""
        with _translated(self._path), self._immediate():
            self._db.execute("UPDATE epoch SET value = value + 1")
            self.epoch = self._db.execute("SELECT value FROM epoch").fetchone()[0]
        return self.epoch

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
    ) -> None:
        """Everything that one step changed, in one transaction.

        Args:
            before: The state that the step began with.
            after: The state that it led to.
            actions: What it decided.
            now: The time of the step.
            frames: The task message of each `IssueTask`, by task id.
            summaries: The summary of each `CommitVersion`, by version. Its files are durable, under the
                name of their content; only this row entitles them to their number.
            drop_chunks: Uploads that this step has settled.

        Raises:
            FencedError: Another coordinator took over; nothing was written.
            RunError: The disk refused.
        """
        with self._transaction():
            for action in actions:
                self._apply(action, now, frames, summaries)
            for client_id, client in after.clients.items():
                if before.clients.get(client_id) is not client:
                    self._put_client(client_id, client)
            self._db.executemany("DELETE FROM chunk WHERE upload = ?", [(u,) for u in drop_chunks])

    def put_version(self, summary: VersionSummary) -> None:
        """Record a version made outside a step: version 0."""
        with self._transaction():
            self._put_version(summary)

    def put_chunk(self, upload: str, i: int, nbytes: int, site: str, now: float) -> int:
        """Record a durable chunk; again is harmless. Returns how many chunks of it are there."""
        with self._transaction():
            row = (upload, i, nbytes, site, now)
            self._db.execute("INSERT OR IGNORE INTO chunk VALUES (?, ?, ?, ?, ?)", row)
        return int(self._one("SELECT COUNT(*) FROM chunk WHERE upload = ?", upload))

    def drop_chunks(self, upload: str) -> None:
        """Forget an upload that came to nothing."""
        with self._transaction():
            self._db.execute("DELETE FROM chunk WHERE upload = ?", (upload,))

    def mark_sent(self, ids: Sequence[int]) -> None:
        """The broker confirmed these outbox entries."""
        with self._transaction():
            self._db.executemany("DELETE FROM outbox WHERE id = ?", [(i,) for i in ids])

    @contextmanager
    def fenced(self) -> Iterator[None]:
        """A time in which nobody can take over: for changing files by what the rows say.

        Raises:
            FencedError: Another coordinator took over before.
        """
        with self._transaction():
            yield

    # reading

    def outbox(self) -> list[Outgoing]:
        """Task messages to publish, oldest first."""
        rows = self.rows("SELECT id, site, task_id, frame FROM outbox ORDER BY id")
        return [Outgoing(*row) for row in rows]

    def receipt(self, task_id: str) -> Receipt | None:
        """What became of a task, if it is settled."""
        query = "SELECT task_id, attempt, state, reason FROM receipt WHERE task_id = ?"
        return next((_receipt(row) for row in self.rows(query, task_id)), None)

    def receipts(self, limit: int) -> list[tuple[str, Receipt]]:
        """The newest receipts, each with the site whose workers wait for it."""
        query = (
            "SELECT client_id, task_id, attempt, state, reason FROM receipt JOIN task"
            " USING (task_id) ORDER BY at DESC LIMIT ?"
        )
        sites = {client.client_id: client.site for client in self.joined_clients(include_left=True)}
        rows = self.rows(query, limit)
        return [(sites.get(client, LOCAL.name), _receipt(row)) for client, *row in rows]

    def command_reply(self, command_id: str) -> CommandReply | None:
        """What became of a command, if it was carried out or refused."""
        query = "SELECT refused FROM command WHERE command_id = ?"
        for (refused,) in self.rows(query, command_id):
            state: Literal["done", "refused"] = "refused" if refused else "done"
            return CommandReply(command_id=command_id, state=state, reason=refused)
        return None

    def paused(self) -> bool:
        """Whether an operator holds the run."""
        query = "SELECT paused FROM command WHERE paused IS NOT NULL ORDER BY rowid DESC LIMIT 1"
        return any(paused for (paused,) in self.rows(query))

    def site_of(self, task_id: str) -> str:
        """The site that a task was issued to."""
        query = "SELECT site FROM task JOIN member USING (client_id) WHERE task_id = ?"
        return next((site for (site,) in self.rows(query, task_id)), LOCAL.name)

    def joined_clients(self, *, include_left: bool = False) -> list[Client]:
        """Clients that joined, in the order of their joining; with `gone`, also those that left."""
        query = "SELECT client_id, site, rows FROM member WHERE left <= ? ORDER BY rowid"
        return [
            Client(client, site, MappingProxyType(json.loads(rows)))
            for client, site, rows in self.rows(query, int(include_left))
        ]

    def versions(self, after: int = -1) -> list[VersionSummary]:
        """Summaries of the versions later than one, oldest first."""
        query = "SELECT summary FROM version WHERE version > ? ORDER BY version"
        return [VersionSummary.model_validate_json(s) for (s,) in self.rows(query, after)]

    def version_digests(self) -> dict[int, str]:
        """SHA-256 of the broadcast frame of every version."""
        return {summary.version: summary.sha256 for summary in self.versions()}

    def events(self, limit: int) -> list[Event]:
        """The newest events, oldest first."""
        query = "SELECT at, level, kind, text, refs FROM event ORDER BY id DESC LIMIT ?"
        return [
            Event(at=at, level=level, kind=kind, text=text, refs=json.loads(refs))
            for at, level, kind, text, refs in reversed(self.rows(query, limit))
        ]

    def unfinished_uploads(self) -> dict[str, tuple[str, float]]:
        """Unfinished uploads: site and time of the first chunk."""
        query = "SELECT upload, site, MIN(at) FROM chunk GROUP BY upload"
        return {upload: (site, at) for upload, site, at in self.rows(query)}

    def unapplied_uploads(self) -> set[str]:
        """Uploads that are accepted and not applied: their files must not be touched."""
        return {u for (u,) in self.rows("SELECT upload FROM accepted WHERE version IS NULL")}

    def receipt_counts(self) -> dict[str, int]:
        """Receipts by state."""
        return dict(self.rows("SELECT state, COUNT(*) FROM receipt GROUP BY state"))

    def check_epoch(self) -> None:
        """Raise `FencedError` if another coordinator has taken over."""
        current = self._one("SELECT value FROM epoch")
        if current != self.epoch:
            raise FencedError(
                f"another coordinator has taken over {self._path} (epoch {current})",
                "stop this one",
            )

    def rows(self, query: str, *values: object) -> list[Any]:
        """Rows of a query; `coordinator/storage/recovery.py` asks its own."""
        with _translated(self._path):
            return self._db.execute(query, values).fetchall()

    # inside

    def _apply(
        self,
        action: Action,
        now: float,
        frames: Mapping[str, bytes],
        summaries: Mapping[int, VersionSummary],
    ) -> None:
        match action:
            case IssueTask():
                self._issue(action, now, frames[action.task.task_id])
            case AcceptUpdate():
                self._accept(action, now)
                task = action.update
                self._settle(task.task_id, task.attempt, "accepted", "", now)
            case CloseTask():
                self._settle(
                    action.task_id, action.attempt, "rejected", action.rejection.reason, now
                )
            case CommitVersion():
                self._put_version(summaries[action.version])
                done = [(action.version, part.update.task_id) for part in action.parts]
                self._db.executemany("UPDATE accepted SET version = ? WHERE task_id = ?", done)
            case AdmitClient():
                self._put_member(action.client)
            case DismissClient(left=True):
                query = "UPDATE member SET left = 1 WHERE client_id = ?"
                self._db.execute(query, (action.client_id,))
            case ReplyToCommand():
                command = action.command
                asked = (command.command_id, command.action, command.target, command.by, now)
                query = "INSERT INTO command VALUES (?, ?, ?, ?, ?, ?, ?)"
                self._db.execute(query, (*asked, action.refused, action.paused))
            case LogEvent():
                row = (now, action.level, action.kind, action.text, json.dumps(dict(action.refs)))
                query = "INSERT INTO event (at, level, kind, text, refs) VALUES (?, ?, ?, ?, ?)"
                self._db.execute(query, row)
                self._db.execute(
                    "DELETE FROM event WHERE id <= (SELECT MAX(id) FROM event) - ?", (MAX_EVENTS,)
                )
            case _:
                pass  # Discard, Repeat, Finish and a refused Dismiss change no record

    def _issue(self, action: IssueTask, now: float, frame: bytes) -> None:
        task = action.task
        self._db.execute(
            "INSERT OR IGNORE INTO task (task_id, client_id, phase, seed) VALUES (?, ?, ?, ?)",
            (task.task_id, task.client_id, task.phase, task.seed),
        )
        row = (task.task_id, task.attempt, task.base_version, now, self.epoch)
        self._db.execute("INSERT INTO attempt VALUES (?, ?, ?, ?, ?)", row)
        entry = (action.site, task.task_id, frame)
        self._db.execute("INSERT INTO outbox (site, task_id, frame) VALUES (?, ?, ?)", entry)

    def _accept(self, action: AcceptUpdate, now: float) -> None:
        u = action.update
        self._db.execute(
            "INSERT INTO accepted (task_id, attempt, client_id, worker_id, base_version, stats,"
            " norm, clip, nbytes, upload, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(u.task_id, u.attempt, u.client_id, u.worker_id, u.base_version),
                *(u.stats.model_dump_json(), action.norm, u.clip, u.nbytes, u.upload, now),
            ),
        )

    def _settle(self, task_id: str, attempt: int, state: str, reason: str, now: float) -> None:
        row = (task_id, attempt, state, reason, now)
        self._db.execute("INSERT INTO receipt VALUES (?, ?, ?, ?, ?)", row)
        self._db.execute("UPDATE task SET open = 0 WHERE task_id = ?", (task_id,))
        self._db.execute("DELETE FROM outbox WHERE task_id = ?", (task_id,))

    def _put_version(self, summary: VersionSummary) -> None:
        row = (summary.version, summary.model_dump_json())
        self._db.execute("INSERT INTO version VALUES (?, ?)", row)

    def _put_client(self, client_id: str, client: ClientState) -> None:
        last = client.last_stats.model_dump_json() if client.last_stats else None
        row = (client_id, client.issued, client.participation, client.strikes, last)
        self._db.execute(
            "INSERT INTO client VALUES (?, ?, ?, ?, ?) ON CONFLICT (client_id) DO UPDATE SET"
            " issued = excluded.issued, participation = excluded.participation,"
            " strikes = excluded.strikes, last = excluded.last",
            row,
        )

    def _put_member(self, client: Client) -> None:
        row = (client.client_id, client.site, json.dumps(dict(client.rows)))
        self._db.execute(
            "INSERT INTO member VALUES (?, ?, ?, 0) ON CONFLICT (client_id) DO UPDATE SET"
            " site = excluded.site, rows = excluded.rows, left = 0",
            row,
        )

    def _one(self, query: str, *values: object) -> Any:
        return self.rows(query, *values)[0][0]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """A write transaction of this epoch, or `FencedError` and no write."""
        with _translated(self._path), self._immediate():
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


def _connect(path: Path) -> sqlite3.Connection:
    # One coordinator thread uses it; which thread opened it does not matter.
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    return db


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise RunError(f"{path}: {error}", "check the disk, and that the file is a run") from None

"""Rows that one step writes into the journal, inside the journal's transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

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
from coordinator.core.pace import Pace
from coordinator.core.state import Client, ClientState
from coordinator.storage import evaluation_rows
from coordinator.storage.kept_updates import kept_file

MAX_EVENTS = 50_000  # so that a flood of rejected messages cannot grow the journal without end


def write_action(
    db: sqlite3.Connection,
    action: Action,
    now: float,
    epoch: int,
    frames: Mapping[str, bytes],
    summaries: Mapping[int, VersionSummary],
) -> None:
    match action:
        case IssueTask():
            put_task(db, action, now, epoch, frames[action.task.task_id])
        case AcceptUpdate():
            put_accepted(db, action, now)
            put_receipt(db, action.update.task_id, action.update.attempt, "accepted", "", now)
        case CloseTask(task_id=task_id, attempt=attempt, rejection=rejection):
            put_receipt(db, task_id, attempt, "rejected", rejection.reason, now)
        case CommitVersion():
            put_version(db, summaries[action.version])
            applied = [(action.version, part.update.task_id) for part in action.parts]
            db.executemany("UPDATE accepted SET version = ? WHERE task_id = ?", applied)
        case AdmitClient():
            put_member(db, action.client)
        case DismissClient(left=True):
            query = "UPDATE member SET left = 1 WHERE client_id = ?"
            db.execute(query, (action.client_id,))
        case ReplyToCommand():
            put_reply(db, action, now)
        case LogEvent():
            put_event(db, action, now)
        case _:
            evaluation_rows.write_action(db, action, now, frames)


def put_task(
    db: sqlite3.Connection, action: IssueTask, now: float, epoch: int, frame: bytes
) -> None:
    task = action.task
    db.execute(
        "INSERT OR IGNORE INTO task (task_id, client_id, phase, seed) VALUES (?, ?, ?, ?)",
        (task.task_id, task.client_id, task.phase, task.seed),
    )
    if task.steps:
        db.execute("INSERT OR IGNORE INTO task_steps VALUES (?, ?)", (task.task_id, task.steps))
    row = (task.task_id, task.attempt, task.base_version, now, epoch)
    db.execute("INSERT INTO attempt VALUES (?, ?, ?, ?, ?)", row)
    entry = (action.site, task.task_id, frame)
    db.execute("INSERT INTO outbox (site, task_id, frame) VALUES (?, ?, ?)", entry)


def put_accepted(db: sqlite3.Connection, action: AcceptUpdate, now: float) -> None:
    u = action.update
    db.execute(
        "INSERT INTO accepted (task_id, attempt, client_id, worker_id, base_version, stats,"
        " norm, clip, nbytes, upload, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(u.task_id, u.attempt, u.client_id, u.worker_id, u.base_version),
            *(u.stats.model_dump_json(), action.norm, u.clip, u.nbytes, u.upload, now),
        ),
    )


def put_kept_updates(db: sqlite3.Connection, actions: Iterable[Action]) -> None:
    """Write which files stay of the updates that commits have applied."""
    commits = [action for action in actions if isinstance(action, CommitVersion)]
    rows = [(p.update.task_id, kept_file(p.update)) for each in commits for p in each.parts]
    db.executemany("INSERT INTO kept_update VALUES (?, ?)", rows)


def put_noise_seeds(db: sqlite3.Connection, seeds: Mapping[int, bytes]) -> None:
    """Write from what the noise of versions was drawn: with it, `fccl verify` can recompute them.

    A seed is as secret as the updates, since it takes the noise away from their sum.
    """
    db.executemany("INSERT INTO noise_seed VALUES (?, ?)", seeds.items())


def put_receipt(
    db: sqlite3.Connection, task_id: str, attempt: int, state: str, reason: str, now: float
) -> None:
    """Write the final receipt of a task, which closes it and cancels its unsent messages."""
    row = (task_id, attempt, state, reason, now)
    db.execute("INSERT INTO receipt VALUES (?, ?, ?, ?, ?)", row)
    db.execute("UPDATE task SET open = 0 WHERE task_id = ?", (task_id,))
    db.execute("DELETE FROM outbox WHERE task_id = ?", (task_id,))


def put_version(db: sqlite3.Connection, summary: VersionSummary) -> None:
    row = (summary.version, summary.model_dump_json())
    db.execute("INSERT INTO version VALUES (?, ?)", row)


def put_client(db: sqlite3.Connection, client_id: str, client: ClientState) -> None:
    last = client.last_stats.model_dump_json() if client.last_stats else None
    row = (client_id, client.issued, client.participation, client.strikes, last)
    db.execute(
        "INSERT INTO client VALUES (?, ?, ?, ?, ?) ON CONFLICT (client_id) DO UPDATE SET"
        " issued = excluded.issued, participation = excluded.participation,"
        " strikes = excluded.strikes, last = excluded.last",
        row,
    )


def put_paces(db: sqlite3.Connection, client_id: str, paces: Sequence[Pace]) -> None:
    text = json.dumps([[pace.step_s, pace.overhead_s] for pace in paces])
    db.execute("INSERT OR REPLACE INTO client_pace VALUES (?, ?)", (client_id, text))


def put_reply(db: sqlite3.Connection, reply: ReplyToCommand, now: float) -> None:
    command = reply.command
    row = (command.command_id, command.action, command.target, command.by, now)
    query = "INSERT INTO command VALUES (?, ?, ?, ?, ?, ?, ?)"
    db.execute(query, (*row, reply.refused, reply.paused))


def put_event(db: sqlite3.Connection, event: LogEvent, now: float) -> None:
    row = (now, event.level, event.kind.value, event.text, json.dumps(dict(event.refs)))
    query = "INSERT INTO event (at, level, kind, text, refs) VALUES (?, ?, ?, ?, ?)"
    db.execute(query, row)
    db.execute("DELETE FROM event WHERE id <= (SELECT MAX(id) FROM event) - ?", (MAX_EVENTS,))


def put_member(db: sqlite3.Connection, client: Client) -> None:
    row = (client.client_id, client.site, json.dumps(dict(client.rows)))
    db.execute(
        "INSERT INTO member VALUES (?, ?, ?, 0) ON CONFLICT (client_id) DO UPDATE SET"
        " site = excluded.site, rows = excluded.rows, left = 0",
        row,
    )
    query = "INSERT OR REPLACE INTO sharing VALUES (?, ?)"
    db.execute(query, (client.client_id, client.shares_updates))

"""Rows about evaluations and scores that one step writes, inside the journal's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from common.protocol.kinds import RejectionKind
from coordinator.core.events import (
    AcceptEvaluation,
    Action,
    CloseEvaluation,
    CloseRound,
    IssueEvaluation,
    OpenRound,
    RecordScores,
)

MICROSECOND = 1e-6  # more than the resolution of a float that counts seconds since the epoch


def write_action(
    db: sqlite3.Connection, action: Action, now: float, frames: Mapping[str, bytes]
) -> None:
    match action:
        case IssueEvaluation():
            put_evaluation(db, action, frames[action.evaluation.task_id])
        case AcceptEvaluation(result=result):
            answer = (result.attempt, "accepted", "", now, result.model_dump_json())
            put_evaluation_receipt(db, result.task_id, *answer)
        case CloseEvaluation(rejection=rejection):
            state = "declined" if rejection.kind is RejectionKind.DECLINED else "rejected"
            closed = (action.attempt, state, rejection.reason, now, None)
            put_evaluation_receipt(db, action.task_id, *closed)
        case OpenRound() | CloseRound():
            put_round(db, action, now)
        case RecordScores():
            put_scores(db, action, now)
        case _:
            pass  # the other actions change no record


def put_evaluation(db: sqlite3.Connection, action: IssueEvaluation, frame: bytes) -> None:
    """Write the newest attempt of an evaluation, and its message.

    It belongs to the round that was opened no later than it was issued, so its time is not before
    that of the round, even if the clock was set back meanwhile.
    """
    e = action.evaluation
    row = (e.task_id, e.attempt, e.client_id, action.site, e.version, e.phase, e.candidate)
    query = "SELECT MAX(opened_at) FROM evaluation_round WHERE version = ? AND phase = ?"
    opened_at = db.execute(query, (e.version, e.phase)).fetchone()[0] or 0.0
    db.execute(
        "INSERT INTO evaluation VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'open', '', NULL, NULL)"
        " ON CONFLICT (task_id) DO UPDATE SET attempt = excluded.attempt, site = excluded.site",
        (*row, max(e.issued_at, opened_at)),
    )
    entry = (action.site, e.task_id, frame)
    db.execute("INSERT INTO outbox (site, task_id, frame) VALUES (?, ?, ?)", entry)


def put_evaluation_receipt(
    db: sqlite3.Connection,
    task_id: str,
    attempt: int,
    state: str,
    reason: str,
    now: float,
    result: str | None,
) -> None:
    """Write the final receipt of an evaluation, and cancel its unsent messages.

    The state is that of a receipt, or `declined`: then its client is not asked again.
    """
    db.execute(
        "UPDATE evaluation SET attempt = ?, state = ?, reason = ?, at = ?, result = ?"
        " WHERE task_id = ?",
        (attempt, state, reason, now, result, task_id),
    )
    db.execute("DELETE FROM outbox WHERE task_id = ?", (task_id,))


def put_round(db: sqlite3.Connection, action: OpenRound | CloseRound, now: float) -> None:
    key = (action.version, action.phase)
    if isinstance(action, OpenRound):  # a version may be evaluated again, on request
        query = "SELECT MAX(issued_at) FROM evaluation WHERE version = ? AND phase = ?"
        newest = db.execute(query, key).fetchone()[0] or 0.0
        query = "INSERT OR REPLACE INTO evaluation_round VALUES (?, ?, ?, NULL)"
        db.execute(query, (*key, max(now, newest + MICROSECOND)))  # after its earlier evaluations
        return
    query = "UPDATE evaluation_round SET closed_at = ? WHERE version = ? AND phase = ?"
    db.execute(query, (now, *key))


def put_scores(db: sqlite3.Connection, action: RecordScores, now: float) -> None:
    rows = [
        (each.task_id, action.source, each.score, each.seconds, each.nbytes, now)
        for each in action.scores
    ]
    db.executemany("INSERT OR IGNORE INTO score VALUES (?, ?, ?, ?, ?, ?)", rows)

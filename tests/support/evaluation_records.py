"""Evaluations at the sites as records, and as rows of a journal."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from common.evaluation.sums import EvaluationSums
from common.protocol.evaluations import EvalResult
from common.protocol.fields import RowKind
from common.run_directory.records import EvaluationRecord, RoundRecord


def text_sums(loss: float, rows: int = 10) -> EvaluationSums:
    """Return the sums over rows of 10 tokens each, of this mean loss per token."""
    return EvaluationSums(rows=rows, loss=loss * 10 * rows, tokens=10 * rows, bytes=40 * rows)


def evaluation(
    client: str,
    version: int,
    loss: float,
    *,
    rows: int = 10,
    phase: int = 0,
    at: float | None = None,
    kind: RowKind = "sft",
) -> EvaluationRecord:
    return EvaluationRecord(
        at=100.0 + 10 * version if at is None else at,
        task_id=f"e{phase}{version}{client}",
        client_id=client,
        version=version,
        phase=phase,
        kind=kind,
        sums=text_sums(loss, rows),
        seconds=1.5,
    )


def round_of(
    version: int, *expected: str, phase: int = 0, at: float = 100.0, closed_at: float | None = 200.0
) -> RoundRecord:
    return RoundRecord(at=at, closed_at=closed_at, version=version, phase=phase, expected=expected)


def put_evaluations(
    db: sqlite3.Connection, records: Iterable[EvaluationRecord], site: str = "local"
) -> None:
    """Write accepted evaluations into a journal."""
    for record in records:
        result = EvalResult(
            task_id=record.task_id,
            attempt=1,
            client_id=record.client_id,
            worker_id="w",
            version=record.version,
            sums=record.sums,
            seconds=record.seconds,
        )
        row = (record.task_id, 1, record.client_id, site, record.version, record.phase, "")
        state = (record.at - 1, "accepted", "", record.at, result.model_dump_json())
        columns = (
            "task_id, attempt, client_id, site, version, phase, candidate, issued_at, state,"
            " reason, at, result"
        )
        db.execute(
            f"INSERT INTO evaluation ({columns}) VALUES ({', '.join('?' * 12)})", row + state
        )


def put_rounds(db: sqlite3.Connection, rounds: Iterable[RoundRecord]) -> None:
    """Write evaluations that became due into a journal."""
    for each in rounds:
        row = (each.version, each.phase, each.at, each.closed_at)
        columns = "version, phase, opened_at, closed_at"
        db.execute(f"INSERT INTO evaluation_round ({columns}) VALUES (?, ?, ?, ?)", row)

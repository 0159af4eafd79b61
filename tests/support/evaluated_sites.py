"""Journals of runs whose clients joined with rows of their own and evaluated versions on them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from common.evaluation.sums import EvaluationSums
from common.protocol.evaluations import EvalResult
from common.protocol.fields import RowKind

Answers = Mapping[str, EvaluationSums]  # by client


def text_sums(rows: int, nats: float, tokens: int = 10) -> EvaluationSums:
    """Return the sums of instructions of `tokens` tokens each, at `nats` per token."""
    count = rows * tokens
    return EvaluationSums(rows=rows, loss=nats * count, tokens=count, bytes=4 * count)


def class_sums(*matrix: Sequence[int]) -> EvaluationSums:
    """Return the sums of texts with this confusion matrix."""
    rows = sum(map(sum, matrix))
    correct = sum(row[i] for i, row in enumerate(matrix))
    confusion = tuple(tuple(row) for row in matrix)
    return EvaluationSums(
        rows=rows, loss=float(rows - correct), correct=correct, confusion=confusion
    )


def add_members(directory: Path, kind: RowKind, rows: Mapping[str, int]) -> None:
    """Record clients that joined; a client `alpha.one` is of the site `alpha`."""
    with closing(sqlite3.connect(directory / "run.db")) as db, db:
        for client, count in rows.items():
            values = (client, client.split(".")[0], json.dumps({kind: count}))
            db.execute("INSERT INTO member VALUES (?, ?, ?, 0)", values)


def add_round(
    directory: Path,
    version: int,
    answers: Answers,
    *,
    phase: int = 0,
    asked: Sequence[str] = (),
    at: float = 10.0,
    closed: bool = True,
) -> None:
    """Record the evaluation of a version: the answers, and further clients that were asked."""
    with closing(sqlite3.connect(directory / "run.db")) as db, db:
        end = at + 5 if closed else None
        db.execute(
            "INSERT OR REPLACE INTO evaluation_round VALUES (?, ?, ?, ?)", (version, phase, at, end)
        )
        (number,) = db.execute("SELECT COUNT(*) FROM evaluation").fetchone()
        for client in (*answers, *asked):
            number += 1
            site, task, sums = client.split(".")[0], f"e{number:06d}", answers.get(client)
            text = None if sums is None else _result(task, client, version, sums)
            state = "rejected" if sums is None else "accepted"
            reason = "not answered in time" if sums is None else ""
            row = (task, 1, client, site, version, phase, "", at, state, reason, at + 1, text)
            places = ", ".join("?" * len(row))
            db.execute(f"INSERT INTO evaluation VALUES ({places})", row)


def _result(task: str, client: str, version: int, sums: EvaluationSums) -> str:
    return EvalResult(
        task_id=task,
        attempt=1,
        client_id=client,
        worker_id="w",
        version=version,
        sums=sums,
        seconds=2.0,
    ).model_dump_json()

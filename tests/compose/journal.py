"""Check of a run directory: each accepted update is in exactly one version, and none is missing.

It is `tests.support.federations.check_applied_once`, with the standard library alone.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.compose.engine import Failed


def check_applied_once(run: Path) -> dict[str, int]:
    """Compare the journal with all files written from it; return the counts.

    Raises:
        Failed: An update was lost or counted twice, or a version is missing.
    """
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # the files are another user's, and SQLite may have to replay a log
        for path in run.glob("run.db*"):
            shutil.copy(path, folder)
        with closing(sqlite3.connect(Path(folder) / "run.db")) as db:
            return _check(db, run)


def _check(db: sqlite3.Connection, run: Path) -> dict[str, int]:
    def rows(query: str) -> list[tuple[Any, ...]]:
        return db.execute(query).fetchall()

    accepted = rows("SELECT task_id, client_id, version FROM accepted ORDER BY seq")
    receipts = rows("SELECT task_id FROM receipt WHERE state = 'accepted'")
    versions = [version for (version,) in rows("SELECT version FROM version ORDER BY version")]
    shas = [json.loads(text)["sha256"] for (text,) in rows("SELECT summary FROM version")]
    progress = _lines(run / "progress.jsonl")
    metrics = _lines(run / "client_metrics.jsonl")

    tasks = Counter(task for task, _, _ in accepted)
    applied = {version: Counter[str]() for version in versions}
    _same("every accepted update is in a version", [v for *_, v in accepted if v is None], [])
    for task, _, version in accepted:
        applied[version][task] += 1
    _same("no task is accepted twice", [t for t, n in tasks.items() if n > 1], [])
    _same("accepted updates have receipts", sorted(t for (t,) in receipts), sorted(tasks))
    _same("versions are contiguous", versions, list(range(len(versions))))
    _same("each version has one line", [line["version"] for line in progress], versions)
    updates = [Counter(line["updates"]) for line in progress]
    _same(
        "lines have the updates of their version",
        updates,
        [applied[version] for version in versions],
    )
    _same("lines have the digest of their version", [line["sha256"] for line in progress], shas)
    measured = Counter((m["task_id"], m["client_id"], m["version"]) for m in metrics)
    _same("metrics have each update once", measured, Counter(accepted))
    _same("nothing is left in the spool", [p.name for p in (run / "spool").iterdir()], [])
    return {
        "versions": len(versions) - 1,
        "updates": len(accepted),
        "attempts": int(rows("SELECT COUNT(*) FROM attempt")[0][0]),
        "tasks": int(rows("SELECT COUNT(*) FROM task")[0][0]),
        "epochs": int(rows("SELECT value FROM epoch")[0][0]),
    }


def _same(what: str, actual: object, expected: object) -> None:
    if actual != expected:
        raise Failed(f"not true: {what}: {actual!r:.400} instead of {expected!r:.400}")


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

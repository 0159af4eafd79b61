"""A run with a long history, and the work that its next commits take.

Work is counted, not timed: instructions of SQLite's virtual machine, and bytes that this process
reads from files. It must not grow with the history of a run.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from common.files import append_jsonl
from common.protocol.updates import ContributionStats
from common.protocol.versions import VersionSummary
from coordinator.storage.journal import Journal
from tests.support.coordinator_records import START, update_summary, version_summary
from tests.support.polled_federation import PolledFederation

UPDATES = 2  # of each version
INSTRUCTIONS_AT_ONCE = 50


@dataclass
class Work:
    """Work of a coordinator from its first turn to its end."""

    instructions: int = 0  # of SQLite
    bytes_read: int = 0  # from files


def federation_with_history(directory: Path, versions: int) -> PolledFederation:
    """Return a federation whose run has made so many versions; three more complete it."""
    federation = PolledFederation(directory, versions=(versions, 3))
    add_history(federation, versions)
    return federation


def add_history(federation: PolledFederation, versions: int) -> None:
    """Add versions to a run that has none but 0, as if a coordinator had made them."""
    opened = federation.open()
    digest = opened.versions.stage(versions, START)
    with sqlite3.connect(federation.directory / "run.db") as db:
        for version in range(1, versions + 1):
            _add_version(db, version, digest.sha256 if version == versions else f"{version:064x}")
    db.close()
    opened.versions.place(versions, digest.sha256)
    lines = ({"version": version, "text": "x" * 200} for version in range(versions + 1))
    append_jsonl(federation.directory / "progress.jsonl", lines)
    metrics = (
        {"version": version, "task_id": _task(version, i), "text": "x" * 500}
        for version in range(1, versions + 1)
        for i in range(UPDATES)
    )
    append_jsonl(federation.directory / "client_metrics.jsonl", metrics)
    opened.journal.close()


def work_until_the_end(federation: PolledFederation) -> Work:
    """Serve a federation, and return the work from its first task on."""
    work, opened = Work(), federation.open()

    def count() -> None:
        work.instructions += INSTRUCTIONS_AT_ONCE

    def begin() -> None:  # a start publishes the history, once
        work.bytes_read = -_bytes_read()
        _connection(opened.journal).set_progress_handler(count, INSTRUCTIONS_AT_ONCE)

    federation.once_issued(begin)
    outcome = federation.service(opened).serve(federation.stop)
    assert outcome.complete
    work.bytes_read += _bytes_read()
    return work


def _connection(journal: Journal) -> sqlite3.Connection:
    return journal._db


def _bytes_read() -> int:
    text = Path("/proc/self/io").read_text(encoding="ascii")
    return int(text.split("rchar:")[1].split()[0])


def _task(version: int, number: int) -> str:
    return f"t{(version - 1) * UPDATES + number + 1:06d}"


def _add_version(db: sqlite3.Connection, version: int, sha256: str) -> None:
    own = update_summary(version - 1, 1.0)
    updates = tuple(
        own.model_copy(update={"task_id": _task(version, i), "client_id": f"client_{i}"})
        for i in range(UPDATES)
    )
    summary = version_summary(version, float(version), *updates)
    _put_summary(db, summary.model_copy(update={"sha256": sha256}))
    for each in updates:
        _put_update(db, version, each.task_id, each.client_id, each.stats)


def _put_summary(db: sqlite3.Connection, summary: VersionSummary) -> None:
    row = (summary.version, summary.model_dump_json())
    db.execute("INSERT INTO version VALUES (?, ?)", row)
    event = (summary.at, "info", "committed", f"version {summary.version}", "{}")
    db.execute("INSERT INTO event (at, level, kind, text, refs) VALUES (?, ?, ?, ?, ?)", event)


def _put_update(
    db: sqlite3.Connection, version: int, task: str, client: str, stats: ContributionStats
) -> None:
    at = float(version)
    db.execute("INSERT INTO task VALUES (?, ?, 0, 1, 0)", (task, client))
    db.execute("INSERT INTO attempt VALUES (?, 1, ?, ?, 1)", (task, version - 1, at))
    db.execute(
        "INSERT INTO accepted (task_id, attempt, client_id, worker_id, base_version, stats, norm,"
        " clip, nbytes, upload, at, version) VALUES (?, 1, ?, 'w', ?, ?, 1, 1, 1, 'u', ?, ?)",
        (task, client, version - 1, stats.model_dump_json(), at, version),
    )
    db.execute("INSERT INTO receipt VALUES (?, 1, 'accepted', '', ?)", (task, at))

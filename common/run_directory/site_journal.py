"""What the journal of a run says about one site: accepted answers with their digests, receipts.

For audits. An update's digest is in the name of its upload. That of an evaluation follows from its
result, which is journaled whole, and of which the site sent the same frame.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.errors import RunError
from common.protocol import codec
from common.protocol.evaluations import EvalResult
from common.protocol.wire import pack
from common.run_directory import journal_reader as journal

AnswerKind = Literal["update", "evaluation"]


@dataclass(frozen=True)
class JournaledAnswer:
    """An update, or the result of an evaluation, that the coordinator has accepted.

    Attributes:
        version: The update's base version, or the version that was evaluated.
        bytes: Size of the frame.
        norm: L2 norm of the update, as it was decoded; None for an evaluation.
        sha256: Of the frame.
    """

    at: float
    kind: AnswerKind
    task: str
    attempt: int
    client: str
    version: int
    bytes: int
    norm: float | None
    sha256: str


@dataclass(frozen=True)
class JournaledReceipt:
    """Receipt of a task; `attempt` is 0 if the task was closed without an answer."""

    attempt: int
    accepted: bool
    reason: str


@dataclass(frozen=True)
class SiteJournal:
    """Part of a journal that concerns one site."""

    run: str  # id
    site: str
    answers: tuple[JournaledAnswer, ...]
    receipts: Mapping[str, JournaledReceipt]  # of tasks and evaluations of all sites, by id


def read_site_journal(directory: Path, site: str) -> SiteJournal:
    """Read what a run directory's journal says about a site.

    Raises:
        RunError: The directory holds no run, or a damaged one.
    """
    path = directory / "run.db"
    if not path.exists():
        raise RunError(f"{directory} holds no run: it has no run.db", "name a run directory")
    with journal.translated_errors(path), journal.open_journal(path) as db:
        (run,) = db.execute("SELECT value FROM meta WHERE key = 'run_id'").fetchone()
        return SiteJournal(
            run, site, (*_updates(db, site), *_evaluations(db, site)), dict(_receipts(db))
        )


def _updates(db: sqlite3.Connection, site: str) -> Iterator[JournaledAnswer]:
    rows = db.execute(
        "SELECT at, task_id, attempt, client_id, base_version, nbytes, norm, upload FROM accepted"
        " ORDER BY at, seq"
    )
    for at, task, attempt, client, version, nbytes, norm, upload in rows:
        sender, _, sha256 = upload.partition(".")
        if sender == site:
            yield JournaledAnswer(
                at, "update", task, attempt, client, version, nbytes, norm, sha256
            )


def _evaluations(db: sqlite3.Connection, site: str) -> Iterator[JournaledAnswer]:
    if not journal.has_table(db, "evaluation"):
        return
    rows = db.execute(
        "SELECT at, task_id, attempt, client_id, version, result FROM evaluation"
        " WHERE state = 'accepted' AND site = ? ORDER BY at, rowid",
        (site,),
    )
    for at, task, attempt, client, version, text in rows:
        frame = pack(EvalResult.model_validate_json(text))
        sha256 = codec.digest(frame)
        yield JournaledAnswer(
            at, "evaluation", task, attempt, client, version, len(frame), None, sha256
        )


def _receipts(db: sqlite3.Connection) -> Iterator[tuple[str, JournaledReceipt]]:
    queries = ["SELECT task_id, attempt, state, reason FROM receipt"]
    if journal.has_table(db, "evaluation"):
        queries.append(
            "SELECT task_id, attempt, state, reason FROM evaluation WHERE state != 'open'"
        )
    for query in queries:
        for task, attempt, state, reason in db.execute(query):
            yield task, JournaledReceipt(attempt, state == "accepted", reason)

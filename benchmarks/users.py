"""The clients whose users speak: what is put into their inboxes, and the models that come of it.

All that `benchmarks.incremental` needs of the front door, of the learner and of `fccl try`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from safetensors.numpy import load_file

from benchmarks.federation import Federation
from benchmarks.streams import Lesson
from common.config.config import IncrementalConfig
from common.protocol.tensors import Tensors
from coordinator.storage.run import Run
from worker.incremental.inbox import schema
from worker.incremental.serving.client_model import load_client_model

GLOBAL = "global"
LIMIT_S = 900.0  # for any one thing to happen


@dataclass(frozen=True)
class Snapshot:
    """A model at some point of the stream.

    Attributes:
        after: The domain that was just told; empty before the first.
        who: A client, or `GLOBAL`.
        version: The global version then.
        adapter: θ.
    """

    after: str
    who: str
    version: int
    adapter: Tensors


@dataclass
class Told:
    """What became of one lesson."""

    domain: str
    client: str
    seconds: float
    verdict: str
    reason: str


def tell(
    federation: Federation, settings: IncrementalConfig, lessons: Sequence[Lesson]
) -> list[Told]:
    """Put a lesson into the inbox of each client, and wait for the verdicts.

    Ended once no item waits any more: each was learned or refused.
    """
    from worker.incremental.inbox.inbox import Inbox
    from worker.incremental.inbox.items import Item

    inboxes = {
        lesson.client: Inbox(
            schema.inbox_path(federation.state, lesson.client), settings, time.time
        )
        for lesson in lessons
    }
    begun = time.monotonic()
    for lesson in lessons:
        items = [
            Item("cls", {"text": row.text, "label": row.label}, lesson.task) for row in lesson.rows
        ]
        inboxes[lesson.client].put(items, "learn")
    told = []
    for lesson in lessons:
        inbox = inboxes[lesson.client]
        federation.until(
            lambda inbox=inbox: not inbox.counts()["waiting"],  # type: ignore[misc]
            f"{lesson.client} to learn",
            LIMIT_S,
        )
        seconds = time.monotonic() - begun
        told.append(
            Told(lesson.domain, lesson.client, seconds, *verdict(federation, lesson.client))
        )
        inbox.close()
    return told


def verdict(federation: Federation, client: str) -> tuple[str, str]:
    """The newest verdict on a client's items, and why."""
    db = schema.connect(schema.inbox_path(federation.state, client))
    try:
        row = db.execute("SELECT verdict, reason FROM batch ORDER BY id DESC LIMIT 1").fetchone()
    finally:
        db.close()
    return (str(row[0]), str(row[1])) if row else ("", "")


def own(federation: Federation, domain: str, client: str) -> Snapshot:
    """A client's model as `fccl try` would answer with."""
    current = load_client_model(federation.state, client)
    return Snapshot(domain, client, current.model.version, current.adapter)


def newest(run: Run, federation: Federation, domain: str) -> Snapshot:
    """The global version."""
    version = federation.version()
    (file,) = run.versions.directory(version).glob("*.safetensors")
    return Snapshot(domain, GLOBAL, version, dict(load_file(file)))

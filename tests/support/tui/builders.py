"""Records of a run with defaults, for tests of the terminal UI."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from common.protocol.feed import Event
from common.protocol.heartbeat import Heartbeat, InboxFigures
from common.protocol.versions import SampleAnswer, UpdateSummary, VersionSummary
from common.store.view import ClientRow, FederationView, QueueRow, RunInfo
from tui.data.reader import Snapshot


def event(
    text: str, level: str = "info", kind: str = "note", at: float = 0.0, **refs: Any
) -> Event:
    fields = {"at": at, "level": level, "kind": kind, "text": text, "refs": refs}
    return Event.model_validate(fields)


def rejection(client: str, reason: str) -> Event:
    text = f"update of {client} rejected: {reason}"
    return event(text, "warning", "rejected", client=client, reason=reason)


REJECTIONS = [
    rejection("client_2", "staleness 21 is over 20"),
    rejection("client_1", "a norm of 9"),
]


def update(client: str = "client_0", **changed: Any) -> UpdateSummary:
    fields: dict[str, Any] = {
        "task_id": f"t-{client}",
        "client_id": client,
        "worker_id": "w1",
        "base_version": 0,
        "staleness": 0,
        "score": 2.0,
        "weight": 0.5,
        "staleness_factor": 1.0,
        "participation_factor": 1.0,
        "clip": 1.0,
        "coefficient": 0.5,
        "num_samples": 10,
        "num_tokens": 100,
        "steps": 5,
        "avg_loss": 2.0,
        "loss_before": 2.1,
        "loss_after": 1.9,
        "delta_norm": 1.0,
        "train_seconds": 1.0,
        "nbytes": 1000,
    }
    return UpdateSummary.model_validate({**fields, **changed})


def version(number: int, *updates: UpdateSummary, **changed: Any) -> VersionSummary:
    fields: dict[str, Any] = {
        "version": number,
        "phase": 0,
        "at": 1000.0 + 60 * number,
        "sha256": f"{number:x}".rjust(4, "0") * 16,
        "nbytes": 2048,
        "train_loss": 4.0 - number / 10,
        "updates": updates,
    }
    return VersionSummary.model_validate({**fields, **changed})


def version_history(count: int) -> tuple[VersionSummary, ...]:
    """Return version 0, then versions of two updates each by three clients in turn."""
    versions = [version(0, train_loss=None)]
    for number in range(1, count + 1):
        one, other = f"client_{number % 3}", f"client_{(number + 1) % 3}"
        first = update(one, task_id=f"t{2 * number}", weight=0.25, coefficient=0.125, staleness=3)
        second = update(other, task_id=f"t{2 * number + 1}", weight=0.75, clip=0.5)
        versions.append(version(number, first, second))
    return tuple(versions)


def client(name: str, site: str = "local", **changed: Any) -> ClientRow:
    fields: dict[str, Any] = {
        "client_id": name,
        "site": site,
        "rows": 10,
        "issued": 0,
        "participation": 0,
    }
    return ClientRow.model_validate({**fields, **changed})


def heartbeat(worker: str, **changed: Any) -> Heartbeat:
    fields: dict[str, Any] = {
        "worker_id": worker,
        "site": "local",
        "state": "waiting",
        "clients": ("client_0",),
        "sent_at": time.time(),
    }
    return Heartbeat.model_validate({**fields, **changed})


def inbox_row(client: str = "client_0", **changed: Any) -> InboxFigures:
    counts = {"waiting": 4, "learned": 30, "settled": 250, "rejected": 7}
    return InboxFigures.model_validate({"client_id": client, **counts, **changed})


ACCEPTED_BATCH = inbox_row(
    verdict="accepted",
    at=1950.0,
    new_before=0.93,
    new_after=0.41,
    anchor_before=0.3,
    anchor_after=0.302,
    forgetting=0.012,
    backward_transfer=-0.01,
)
REJECTED_BATCH = inbox_row(
    "client_1",
    waiting=0,
    verdict="rejected",
    at=1000.0,
    new_before=0.2,
    new_after=0.9,
    anchor_before=0.3,
    anchor_after=0.6,
    reason="it forgets: anchor loss 0.300 to 0.600",
)


def sample(number: int, prompt: str = "What is it?", **changed: Any) -> SampleAnswer:
    fields: dict[str, Any] = {
        "version": number,
        "at": 1000.0 + 60 * number,
        "kind": "sft",
        "asked": prompt,
        "expected": "It is a test.",
        "answer": f"Answer {number}.",
    }
    return SampleAnswer.model_validate({**fields, **changed})


def queue(name: str, messages: int = 0, consumers: int = 1) -> QueueRow:
    return QueueRow(queue=f"fccl.r.{name}", messages=messages, consumers=consumers)


def info(**changed: Any) -> RunInfo:
    fields: dict[str, Any] = {
        "run": "r",
        "name": "r",
        "status": "running",
        "detail": "1 of 1 clients served",
        "version": 1,
        "total_versions": 9,
        "phase": 0,
        "phases": ("sft",),
        "clients": 1,
        "buffered": 0,
        "buffer_size": 2,
        "open_tasks": 1,
        "accepted": 2,
        "rejected": 0,
        "started_at": 1000.0,
        "updated_at": 1000.0,
        "max_staleness": 20,
    }
    return RunInfo.model_validate({**fields, **changed})


def snapshot(
    *,
    read_at: float = 1.0,
    clients: Sequence[ClientRow] = (),
    workers: Sequence[Heartbeat] = (),
    queues: Sequence[QueueRow] = (),
    versions: Sequence[VersionSummary] = (),
    events: Sequence[Event] = (),
    samples: Sequence[SampleAnswer] = (),
    **changed: Any,
) -> Snapshot:
    """Return a live snapshot of a run; `changed` are fields of its `RunInfo`."""
    view = FederationView(
        info=info(**changed),
        clients=tuple(clients),
        workers=tuple(workers),
        queues=tuple(queues),
        versions=tuple(versions),
        events=tuple(events),
        samples=tuple(samples),
    )
    return Snapshot("live", view, read_at=read_at, changed_at=read_at)

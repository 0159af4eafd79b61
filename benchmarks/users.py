"""Users of some clients: puts their items into inboxes, and reads the resulting models.

Everything that `benchmarks.incremental` needs from the inbox, the learner and `fccl try`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from safetensors.numpy import load_file

from benchmarks.federation import Federation
from benchmarks.streams import StreamBatch
from common.config.config import IncrementalConfig
from common.protocol.tensors import Tensors
from coordinator.storage.run import Run
from worker.incremental.inbox import schema
from worker.incremental.inbox.inbox import Inbox
from worker.incremental.inbox.items import Item
from worker.incremental.report import history
from worker.incremental.serving.client_model import load_client_model

GLOBAL = "global"
LIMIT_S = 900.0  # for any single thing to happen


@dataclass(frozen=True)
class Snapshot:
    """A model at some point of the stream.

    Attributes:
        after: Domain that was learned last; empty before the first.
        who: A client, or `GLOBAL`.
        version: Global version at that time.
        adapter: θ.
    """

    after: str
    who: str
    version: int
    adapter: Tensors


@dataclass
class BatchOutcome:
    """Outcome of one batch of items for one client."""

    domain: str
    client: str
    seconds: float
    verdict: str
    reason: str


def teach(
    federation: Federation, settings: IncrementalConfig, batches: Sequence[StreamBatch]
) -> list[BatchOutcome]:
    """Put a batch into each client's inbox, and wait until no item is waiting any more."""
    outcomes = []
    with ExitStack() as stack:
        inboxes = {
            batch.client: stack.enter_context(
                Inbox(schema.inbox_path(federation.state, batch.client), settings)
            )
            for batch in batches
        }
        start = time.monotonic()
        for batch in batches:
            items = [
                Item("cls", {"text": row.text, "label": row.label}, batch.task)
                for row in batch.rows
            ]
            inboxes[batch.client].put(items, "learn")
        for batch in batches:
            inbox = inboxes[batch.client]
            federation.wait_until(
                lambda inbox=inbox: not inbox.counts()["waiting"],  # type: ignore[misc]
                f"{batch.client} to learn",
                LIMIT_S,
            )
            seconds = time.monotonic() - start
            verdict = newest_verdict(federation, batch.client)
            outcomes.append(BatchOutcome(batch.domain, batch.client, seconds, *verdict))
    return outcomes


def newest_verdict(federation: Federation, client: str) -> tuple[str, str]:
    """Return the newest verdict on a client's items, and its reason."""
    streams = history.read(federation.state, client).streams
    if not streams:
        return "", ""
    newest = streams[-1].batches[-1]
    return newest.verdict, newest.reason


def client_snapshot(federation: Federation, domain: str, client: str) -> Snapshot:
    """Return a client's model, as `fccl try` would use it."""
    current = load_client_model(federation.state, client)
    return Snapshot(domain, client, current.model.version, current.adapter)


def global_snapshot(run: Run, federation: Federation, domain: str) -> Snapshot:
    version = federation.version()
    (file,) = run.versions.directory(version).glob("*.safetensors")
    return Snapshot(domain, GLOBAL, version, dict(load_file(file)))

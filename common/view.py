"""The live state of a run as one frozen value: what `fccl status` and the views show.

Written by `coordinator/status.py`, read in one pipelined request; nothing here can change the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from common.errors import StoreError, WireError
from common.records import (
    Count,
    Event,
    Heartbeat,
    Label,
    Record,
    RunId,
    Seconds,
    Text,
    VersionSummary,
    tuple_of,
)
from common.store import Store
from common.wire import explain, unpack

RunStatus = Literal[
    "starting", "waiting", "running", "paused", "draining", "stopped", "finished", "failed"
]


class RunUnknown(StoreError):
    """The store answers, but no coordinator has told it of such a run."""


class Info(Record):
    """What the coordinator says about the run as a whole."""

    run: RunId
    name: Label
    status: RunStatus
    detail: Text = ""
    version: Count
    total_versions: Count
    phase: Count
    phases: Annotated[tuple[Label, ...], BeforeValidator(tuple_of)]
    clients: Count
    buffered: Count
    buffer_size: Count
    open_tasks: Count
    accepted: Count
    rejected: Count
    started_at: Seconds
    updated_at: Seconds
    max_staleness: Count
    software: Text = ""


class ClientRow(Record):
    """One client as the coordinator sees it."""

    client_id: Label
    site: Label
    rows: Count
    issued: Count
    participation: Count
    task_id: Label | None = None
    base_version: Count | None = None
    staleness: Count | None = None
    last_loss: Annotated[float, Field(allow_inf_nan=False)] | None = None
    weight: float | None = None
    quarantined: bool = False


class QueueRow(Record):
    """Depth of one queue."""

    queue: Annotated[str, Field(max_length=200)]
    messages: Count
    consumers: Count


@dataclass(frozen=True)
class FederationView:
    """One look at a run."""

    info: Info
    clients: tuple[ClientRow, ...]
    workers: tuple[Heartbeat, ...]
    queues: tuple[QueueRow, ...]
    versions: tuple[VersionSummary, ...]
    events: tuple[Event, ...]

    def fields(self) -> dict[str, Any]:
        """Plain maps and lists, for JSON."""
        lists = ("clients", "workers", "queues", "versions", "events")
        listed = {name: [row.fields() for row in getattr(self, name)] for name in lists}
        return {"info": self.info.fields(), **listed}


def read(store: Store, name: str) -> FederationView:
    """The run that carries this name now.

    Raises:
        RunUnknown: No such run is in the store.
        StoreError: The run speaks another protocol, or the store is out of reach.
    """
    run = store.get_run(name)
    raw = store.read(run) if run else {"info": None}
    if run is None or raw["info"] is None:
        raise RunUnknown(
            f"no run {name!r} is known at {store.where}", "start it with `fccl coordinator`"
        )
    try:
        return _view(raw, store.heartbeats(run))
    except WireError as error:
        raise StoreError(f"the status of run {name!r}: {error}", "upgrade fccl here") from None
    except ValidationError as error:
        reason = f"the status of run {name!r}: {explain(error)}"
        raise StoreError(reason, "upgrade fccl here") from None


def _view(raw: Mapping[str, Any], workers: tuple[Heartbeat, ...]) -> FederationView:
    summaries = [VersionSummary.model_validate_json(line) for line in raw["summaries"].values()]
    return FederationView(
        info=unpack(Info, raw["info"])[0],
        clients=_rows(ClientRow, raw["clients"]),
        workers=workers,
        queues=_rows(QueueRow, raw["queues"]),
        versions=tuple(sorted(summaries, key=lambda summary: summary.version)),
        events=tuple(unpack(Event, entry[b"e"])[0] for _, entry in reversed(raw["events"])),
    )


def _rows(kind: Any, table: Mapping[bytes, bytes]) -> Any:
    return tuple(unpack(kind, table[key])[0] for key in sorted(table))

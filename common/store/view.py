"""The live state of a run as one frozen value: what `fccl status` and the views show.

Written by `coordinator/publish/store_publisher.py`, read in one pipelined request; nothing here can change the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError

from common.errors import StoreError, WireError
from common.protocol.feed import Event
from common.protocol.fields import (
    Count,
    Identifier,
    Record,
    RunId,
    Seconds,
    ShortText,
    list_to_tuple,
)
from common.protocol.heartbeat import Heartbeat, InboxFigures
from common.protocol.versions import SampleAnswer, VersionSummary
from common.protocol.wire import explain, unpack
from common.store import inbox_totals
from common.store.store import Store

FEW_EVENTS = 20
MANY_EVENTS = 500

R = TypeVar("R")

RunStatus = Literal[
    "starting", "waiting", "running", "paused", "draining", "stopped", "finished", "failed"
]


class RunNotFound(StoreError):
    """The store answers, but no coordinator has told it of such a run."""


class RunInfo(Record):
    """What the coordinator says about the run as a whole.

    Each phase ends with the version of `phase_ends` in its place.
    """

    run: RunId
    name: Identifier
    status: RunStatus
    detail: ShortText = ""
    version: Count
    total_versions: Count
    phase: Count
    phases: Annotated[tuple[Identifier, ...], BeforeValidator(list_to_tuple)]
    phase_ends: Annotated[tuple[Count, ...], BeforeValidator(list_to_tuple)] = ()
    clients: Count
    buffered: Count
    buffer_size: Count
    open_tasks: Count
    accepted: Count
    rejected: Count
    started_at: Seconds
    updated_at: Seconds
    max_staleness: Count
    software: ShortText = ""


class ClientRow(Record):
    """One client as the coordinator sees it."""

    client_id: Identifier
    site: Identifier
    rows: Count
    issued: Count
    participation: Count
    task_id: Identifier | None = None
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

    info: RunInfo
    clients: tuple[ClientRow, ...]
    workers: tuple[Heartbeat, ...]
    queues: tuple[QueueRow, ...]
    versions: tuple[VersionSummary, ...]
    events: tuple[Event, ...]
    samples: tuple[SampleAnswer, ...] = ()

    @property
    def inbox(self) -> tuple[InboxFigures, ...]:
        """Of the clients with live input, one row each."""
        return inbox_totals.newest_figures(self.workers)

    def fields(self) -> dict[str, Any]:
        """Plain maps and lists, for JSON."""
        lists = ("clients", "workers", "queues", "versions", "events", "samples", "inbox")
        listed = {name: [row.fields() for row in getattr(self, name)] for name in lists}
        return {"info": self.info.fields(), **listed}


def read(store: Store, name: str) -> FederationView:
    """One look at the run that carries this name now, with the last few events.

    Raises:
        RunUnknown: No such run is in the store.
        StoreError: The run speaks another protocol, or the store is out of reach.
    """
    return ViewReader(name, FEW_EVENTS).read(store)


class ViewReader:
    """Looks at a run again and again, and decodes only what it has not seen before.

    What has not changed since the last look is the same object: a view that is shown may compare
    with `is`, and a run of a thousand versions costs no more than a young one.
    """

    def __init__(self, name: str, events: int = MANY_EVENTS) -> None:
        """Nothing is read yet.

        Args:
            name: Of the run.
            events: At most so many of the feed's newest entries.
        """
        self._name, self._events = name, events
        self._run = ""
        self._parts = _Parts()

    def read(self, store: Store) -> FederationView:
        """The run that carries the name now.

        Raises:
            RunUnknown: No such run is in the store.
            StoreError: The run speaks another protocol, or the store is out of reach.
        """
        run = store.get_run(self._name)
        raw = store.read_status(run, self._events) if run else {"info": None}
        if run is None or raw["info"] is None:
            raise RunNotFound(
                f"no run {self._name!r} is known at {store.where}",
                "start it with `fccl coordinator`",
            )
        if run != self._run:  # ids of events and numbers of versions mean something else now
            self._run, self._parts = run, _Parts()
        try:
            return self._parts.view(raw, store.heartbeats(run))
        except WireError as error:
            raise StoreError(
                f"the status of run {self._name!r}: {error}", "upgrade fccl here"
            ) from None
        except ValidationError as error:
            reason = f"the status of run {self._name!r}: {explain(error)}"
            raise StoreError(reason, "upgrade fccl here") from None


class _Parts:
    """The tables of one run, each with what was last decoded of it."""

    def __init__(self) -> None:
        self._clients = _Table(lambda value: unpack(ClientRow, value)[0])
        self._queues = _Table(lambda value: unpack(QueueRow, value)[0])
        self._versions = _Table(VersionSummary.model_validate_json, key=int)
        self._feed = _Table(lambda value: unpack(Event, value)[0], key=_stream_order)
        self._samples = _Table(lambda value: unpack(SampleAnswer, value)[0], key=int)

    def view(self, raw: Mapping[str, Any], workers: tuple[Heartbeat, ...]) -> FederationView:
        return FederationView(
            info=unpack(RunInfo, raw["info"])[0],
            clients=self._clients.rows(raw["clients"]),
            workers=workers,
            queues=self._queues.rows(raw["queues"]),
            versions=self._versions.rows(raw["summaries"]),
            events=self._feed.rows({key: entry[b"e"] for key, entry in raw["events"]}),
            samples=self._samples.rows(raw["samples"]),
        )


class _Table(Generic[R]):
    """One table as records in the order of their keys; a value seen before is not decoded again."""

    def __init__(
        self, decode: Callable[[bytes], R], key: Callable[[bytes], Any] = lambda key: key
    ) -> None:
        self._decode, self._key = decode, key
        self._raw: dict[bytes, bytes] = {}
        self._records: dict[bytes, R] = {}
        self._rows: tuple[R, ...] = ()

    def rows(self, raw: Mapping[bytes, bytes]) -> tuple[R, ...]:
        """The records of a table as it is now; the same tuple while nothing changes."""
        if raw == self._raw:
            return self._rows
        known = self._raw
        self._records = {
            key: self._records[key] if known.get(key) == value else self._decode(value)
            for key, value in raw.items()
        }
        self._raw = dict(raw)
        self._rows = tuple(self._records[key] for key in sorted(raw, key=self._key))
        return self._rows


def _stream_order(key: bytes) -> tuple[int, int]:
    """A stream's id is milliseconds and a count within them."""
    milliseconds, _, count = key.partition(b"-")
    return int(milliseconds), int(count)

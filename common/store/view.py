"""The live state of a run as one frozen value, for `fccl status` and the terminal UI.

`coordinator/publish/store_publisher.py` writes it; it is read in one pipelined request. Nothing
here can change the run.

In an update's path: after `coordinator/publish/store_publisher.py`, before `tui/data/reader.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from common.errors import StoreError, WireError
from common.evaluation.contributions import ContributionRow, contribution_rows
from common.evaluation.rows import EvaluationRow
from common.privacy import PrivacySpending
from common.protocol.evaluations import EvaluatorFigures
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
from common.store.heartbeats import HeartbeatReader
from common.store.store import Store

FEW_EVENTS = 20
MANY_EVENTS = 500

R = TypeVar("R")

RunStatus = Literal[
    "starting", "waiting", "running", "paused", "draining", "stopped", "finished", "failed"
]
ENDED_STATUSES: tuple[RunStatus, ...] = ("stopped", "finished", "failed")  # no coordinator runs


class RunNotFound(StoreError):
    """The store knows no run of this name."""


class ScoreCost(Record):
    """Cost of scores that clients cannot inflate: see `common.run_directory.records.ScoreRecord`.

    Attributes:
        updates: Number of updates that were scored.
        seconds: Computing time, of all evaluators together.
        nbytes: Bytes that travelled for the scores.
    """

    updates: Count = 0
    seconds: Seconds = 0.0
    nbytes: Count = 0


class RunInfo(Record):
    """The coordinator's status of the run as a whole.

    Attributes:
        min_clients: Number of live clients below which nothing is issued or committed.
        live_clients: Clients whose site has sent a heartbeat within `schedule.lease_s`.
        open_evaluations: Evaluations at the sites without an answer.
        contribution_source: What scores are computed from.
        privacy: None without differential privacy.

    Those of earlier releases lack the optional fields, and so do those of runs of schema 1: workers
    of earlier releases serve these, and refuse unknown fields.
    """

    later: ClassVar[frozenset[str]] = frozenset(
        {
            *("min_clients", "live_clients", "open_evaluations", "contribution_source", "scores"),
            "privacy",
        }
    )

    run: RunId
    name: Identifier
    status: RunStatus
    detail: ShortText = ""
    version: Count
    total_versions: Count
    phase: Count
    phases: Annotated[tuple[Identifier, ...], BeforeValidator(list_to_tuple)]
    # the last version of each phase
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
    min_clients: Count | None = None
    live_clients: Count | None = None
    open_evaluations: Count = 0
    contribution_source: Identifier = "train"
    scores: ScoreCost = ScoreCost()
    privacy: PrivacySpending | None = None

    @model_validator(mode="after")
    def _phase_is_one_of_them(self) -> RunInfo:
        if self.phase >= len(self.phases) or len(self.phase_ends) not in (0, len(self.phases)):
            raise ValueError("phase and phase_ends have to agree with phases")
        return self


class ClientRow(Record):
    """One client, as the coordinator sees it.

    Attributes:
        seen_at: Time of the newest heartbeat of its site; None if it has sent none.
        live: Whether that is recent; None in the status of an earlier release.
        declines: Whether it declines to evaluate.
    """

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
    seen_at: Seconds | None = None
    live: bool | None = None
    declines: bool = False


class QueueRow(Record):
    """Depth of one queue of the broker."""

    queue: Annotated[str, Field(max_length=200)]
    messages: Count
    consumers: Count


@dataclass(frozen=True)
class FederationView:
    """The state of a run at one moment.

    Attributes:
        evaluations: Evaluations of versions at the sites, by phase and version.
        contributions: What each client contributed to the versions, by client.
        evaluators: Figures of plug-in evaluators, by version and name.
    """

    info: RunInfo
    clients: tuple[ClientRow, ...]
    workers: tuple[Heartbeat, ...]
    queues: tuple[QueueRow, ...]
    versions: tuple[VersionSummary, ...]
    events: tuple[Event, ...]
    samples: tuple[SampleAnswer, ...] = ()
    evaluations: tuple[EvaluationRow, ...] = ()
    contributions: tuple[ContributionRow, ...] = ()
    evaluators: tuple[EvaluatorFigures, ...] = ()

    @property
    def best(self) -> EvaluationRow | None:
        """The evaluation of the best version of the newest phase that was evaluated."""
        return next((each for each in reversed(self.evaluations) if each.best), None)

    @property
    def inbox(self) -> tuple[InboxFigures, ...]:
        return inbox_totals.newest_figures(self.workers)

    def fields(self) -> dict[str, Any]:
        names = [field.name for field in dataclasses.fields(self) if field.name != "info"]
        listed = {name: [row.fields() for row in getattr(self, name)] for name in (*names, "inbox")}
        return {"info": self.info.fields(), **listed}


def read(store: Store, name: str) -> FederationView:
    """Return the state of the run that has this name now, with the last few events.

    Raises:
        RunNotFound: No such run is in the store.
        StoreError: The run speaks another protocol, or the store is out of reach.
    """
    return ViewReader(name, FEW_EVENTS).read(store)


class ViewReader:
    """A reader of one run's state that decodes only what has changed since the last time.

    Unchanged parts are the same objects, so that a view can compare with `is`, and a run of a
    thousand versions costs no more than a new one. `events` limits the feed's newest entries.
    """

    def __init__(self, name: str, events: int = MANY_EVENTS) -> None:
        self._name, self._events = name, events
        self._run = ""
        self._parts = _Parts()
        self._heartbeats: HeartbeatReader | None = None
        self._store: Store | None = None  # that of the reader of heartbeats

    def read(self, store: Store) -> FederationView:
        """Return the state of the run that has the name now; see `read` for the errors."""
        run = store.get_run(self._name)
        raw = store.read_status(run, self._events) if run else {"info": None}
        if run is None or raw["info"] is None:
            raise RunNotFound(
                f"the store at {store.where} knows no run {self._name!r}",
                "start it with `fccl coordinator`",
            )
        if run != self._run:  # event ids and version numbers belong to another run now
            self._run, self._parts, self._heartbeats = run, _Parts(), None
        if self._heartbeats is None or store is not self._store:
            self._store, self._heartbeats = store, store.heartbeat_reader(run)
        try:
            return self._parts.view(raw, self._heartbeats)
        except (WireError, ValidationError) as error:
            reason = explain(error) if isinstance(error, ValidationError) else error
            raise StoreError(
                f"the status of run {self._name!r}: {reason}", "upgrade fccl here"
            ) from None


class _Parts:
    """The tables of one run, each with the records that were decoded last."""

    def __init__(self) -> None:
        self._clients = _Table(lambda value: unpack(ClientRow, value)[0])
        self._queues = _Table(lambda value: unpack(QueueRow, value)[0])
        self._versions = _Table(VersionSummary.model_validate_json, key=int)
        self._feed = _Table(lambda value: unpack(Event, value)[0], key=_stream_order)
        self._samples = _Table(lambda value: unpack(SampleAnswer, value)[0], key=int)
        self._evaluations = _Table(EvaluationRow.model_validate_json)
        self._evaluators = _Table(EvaluatorFigures.model_validate_json)
        self._summed: tuple[VersionSummary, ...] = ()
        self._contributions: tuple[ContributionRow, ...] = ()

    def view(self, raw: Mapping[str, Any], heartbeats: HeartbeatReader) -> FederationView:
        info = unpack(RunInfo, raw["info"])[0]
        clients = self._clients.rows(raw["clients"])
        versions = self._versions.rows(raw["summaries"])
        if versions is not self._summed:
            self._summed = versions
            self._contributions = contribution_rows(versions, info.phases, info.contribution_source)
        return FederationView(
            info=info,
            clients=clients,
            workers=heartbeats.read({client.site for client in clients}),
            queues=self._queues.rows(raw["queues"]),
            versions=versions,
            events=self._feed.rows({key: entry[b"e"] for key, entry in raw["events"]}),
            samples=self._samples.rows(raw["samples"]),
            evaluations=self._evaluations.rows(raw["evaluations"]),
            contributions=self._contributions,
            evaluators=self._evaluators.rows(raw["evaluators"]),
        )


class _Table(Generic[R]):
    """One table as records in the order of their keys; unchanged values are not decoded again."""

    def __init__(
        self, decode: Callable[[bytes], R], key: Callable[[bytes], Any] = lambda key: key
    ) -> None:
        self._decode, self._key = decode, key
        self._raw: dict[bytes, bytes] = {}
        self._records: dict[bytes, R] = {}
        self._rows: tuple[R, ...] = ()

    def rows(self, raw: Mapping[bytes, bytes]) -> tuple[R, ...]:
        """Return the records of a table; the same tuple as long as nothing changes."""
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
    """Return the sort key of a stream id, which is milliseconds and a count within them."""
    milliseconds, _, count = key.partition(b"-")
    return int(milliseconds), int(count)

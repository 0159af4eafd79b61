"""Events that happen to the coordinator, and actions that it decides on.

`coordinator/core/machine.py` maps events to actions and does nothing else. A driver, such as
`coordinator/service.py`, feeds it the events and carries the actions out, journal first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from common.protocol.commands import Command
from common.protocol.fields import RowKind
from common.protocol.kinds import EventKind, RejectionKind
from common.protocol.updates import ContributionStats
from coordinator.core.state import BufferedUpdate, Client, OpenTask

MAX_TEXT = 500  # characters; the limit of `common.protocol.fields.ShortText`

EventLevel = Literal["info", "warning", "error"]


@dataclass(frozen=True)
class Rejection:
    """Reason for which something does not count: a kind for programs, a text for people."""

    kind: RejectionKind
    reason: str


# events


@dataclass(frozen=True)
class Tick:
    """Passing of time."""


@dataclass(frozen=True)
class WorkerSignal:
    """Content of one live heartbeat. It is a claim: it may renew a lease, but accepts nothing.

    Attributes:
        wishes: Clients that have learned from their users and ask for a task.
    """

    site: str
    busy: bool
    task_id: str | None
    wishes: tuple[str, ...] = ()


@dataclass(frozen=True)
class HeartbeatsRead:
    """All live heartbeats, or the news that the store is out of reach (`store_up` is false)."""

    signals: tuple[WorkerSignal, ...]
    store_up: bool = True


@dataclass(frozen=True)
class UpdateArrived:
    """Complete update with checked tensors; admission has yet to decide on it.

    Attributes:
        norm: L2 norm over all decoded tensors.
        problem: What is wrong with the tensors, if anything.
        upload: Its file in the spool.
    """

    task_id: str
    attempt: int
    client_id: str
    worker_id: str
    site: str
    phase: int
    base_version: int
    stats: ContributionStats
    norm: float
    problem: Rejection | None
    nbytes: int
    upload: str


@dataclass(frozen=True)
class DuplicateArrived:
    """Message about a task that has its receipt in the journal already."""

    task_id: str


@dataclass(frozen=True)
class TaskRefused:
    """Answer of a worker that cannot train a task."""

    task_id: str
    attempt: int
    client_id: str
    site: str
    reason: str


@dataclass(frozen=True)
class EnrolmentRequested:
    """Request of an invited site's client to take part.

    Attributes:
        rows: Training rows of each kind that it claims to have.
        max_clients: Clients that its site's invitation allows.
        max_rows: Rows of each kind that the invitation allows.
    """

    client_id: str
    site: str
    rows: Mapping[RowKind, int]
    max_clients: int
    max_rows: int
    nonce: int = 0


@dataclass(frozen=True)
class SiteRevoked:
    """Revocation of an invited site."""

    site: str


@dataclass(frozen=True)
class CommandReceived:
    """Command of an operator."""

    command: Command


@dataclass(frozen=True)
class StopRequested:
    """Request to stop cleanly: issue nothing more, commit what is buffered, end."""


CoordinatorEvent = (
    Tick
    | HeartbeatsRead
    | UpdateArrived
    | DuplicateArrived
    | TaskRefused
    | EnrolmentRequested
    | SiteRevoked
    | CommandReceived
    | StopRequested
)

# actions


@dataclass(frozen=True)
class IssueTask:
    """Journal a task's newest attempt and put it on its site's queue."""

    task: OpenTask
    site: str


@dataclass(frozen=True)
class AcceptUpdate:
    """Journal an update as accepted, with its receipt: from here on it will be applied."""

    update: BufferedUpdate
    norm: float


@dataclass(frozen=True)
class CloseTask:
    """Journal a rejecting receipt and close the task; attempt 0 if no update caused it."""

    task_id: str
    client_id: str
    rejection: Rejection
    attempt: int = 0


@dataclass(frozen=True)
class DiscardMessage:
    """Dead-letter the message: it comes from somebody who may not answer the task."""

    rejection: Rejection


@dataclass(frozen=True)
class RepeatReceipt:
    """Publish the receipt of a task again."""

    task_id: str


@dataclass(frozen=True)
class CommitPart:
    """One update's share of a commit; `coordinator/aggregation/coefficients.py` computes it.

    Attributes:
        score: Contribution score of its client.
        weight: wᵢ, the client's weight divided by the number of its updates in the buffer.
        staleness_factor: s(τᵢ).
        participation_factor: rᵢ.
        coefficient: Factor of the delta Δᵢ in the next version.
    """

    update: BufferedUpdate
    staleness: int
    score: float
    weight: float
    staleness_factor: float
    participation_factor: float
    coefficient: float


@dataclass(frozen=True)
class CommitVersion:
    """Make the next version, θ + Σ coefficientᵢ Δᵢ, and journal it."""

    version: int
    phase: int
    parts: tuple[CommitPart, ...]


@dataclass(frozen=True)
class AdmitClient:
    """Journal a client that takes part from now on or has changed its rows, and tell its site."""

    client: Client
    nonce: int = 0


@dataclass(frozen=True)
class DismissClient:
    """Tell a site why its client may not take part or, if `left`, takes part no more."""

    client_id: str
    site: str
    reason: str
    left: bool = False
    nonce: int = 0


@dataclass(frozen=True)
class ReplyToCommand:
    """Journal the outcome of a command and answer it.

    Attributes:
        refused: Why it was not carried out; empty if it was.
        paused: Whether the run is paused now, if the command has changed that.
    """

    command: Command
    refused: str = ""
    paused: bool | None = None


@dataclass(frozen=True)
class LogEvent:
    """Journal an entry of the event feed and publish it. `log_event` makes one."""

    level: EventLevel
    kind: EventKind
    text: str
    refs: tuple[tuple[str, str | int | float], ...] = ()


@dataclass(frozen=True)
class FinishRun:
    """End the run: `complete` if the plan is fulfilled, `failed` if it cannot be."""

    complete: bool
    reason: str
    failed: bool = False


Action = (
    IssueTask
    | AcceptUpdate
    | CloseTask
    | DiscardMessage
    | RepeatReceipt
    | CommitVersion
    | AdmitClient
    | DismissClient
    | ReplyToCommand
    | LogEvent
    | FinishRun
)


def log_event(level: EventLevel, kind: EventKind, text: str, **refs: str | int | float) -> LogEvent:
    """Return a feed entry about the things that `refs` names, its text cut to what fits."""
    return LogEvent(level, kind, text[:MAX_TEXT], tuple(refs.items()))

"""What happens to the coordinator (events), and what it then wants done (actions).

`coordinator/core/machine.py` maps one to the other and does nothing itself; a driver feeds it events and
carries the actions out, journal first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common.protocol.commands import Command
from common.protocol.fields import RowKind
from common.protocol.updates import ContributionStats
from coordinator.core.state import BufferedUpdate, Client, OpenTask

# events


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True)
class WorkerSignal:
    """What one live heartbeat says: a claim that may renew a lease, never accept anything."""

    site: str
    busy: bool
    task_id: str | None
    wishes: tuple[str, ...] = ()  # clients that have learned something to be sent


@dataclass(frozen=True)
class HeartbeatsRead:
    """All live heartbeats, or the news that the store is out of reach (`store_up` False)."""

    signals: tuple[WorkerSignal, ...]
    store_up: bool = True


@dataclass(frozen=True)
class UpdateArrived:
    """An update that arrived whole and whose tensors were inspected, but is not yet admitted."""

    task_id: str
    attempt: int
    client_id: str
    worker_id: str
    site: str
    phase: int
    base_version: int
    stats: ContributionStats
    norm: float  # measured on the decoded tensors, L2 over all of them
    problem: str  # what inspection found wrong with the tensors; empty if nothing
    nbytes: int
    upload: str  # its file in the spool


@dataclass(frozen=True)
class DuplicateArrived:
    """An update of a task that has its receipt in the journal."""

    task_id: str


@dataclass(frozen=True)
class TaskRefused:
    """A worker says that it cannot train a task."""

    task_id: str
    attempt: int
    client_id: str
    site: str
    reason: str


@dataclass(frozen=True)
class EnrolmentRequested:
    """A client of an invited site asks to take part, with so many training rows of each kind.

    `max_clients` and `max_rows` are what the invitation of its site allows.
    """

    client_id: str
    site: str
    rows: Mapping[RowKind, int]
    max_clients: int
    max_rows: int
    nonce: int = 0


@dataclass(frozen=True)
class SiteRevoked:
    """A site was revoked."""

    site: str


@dataclass(frozen=True)
class CommandReceived:
    """An operator asks for something; see `common.protocol.commands`."""

    command: Command


@dataclass(frozen=True)
class StopRequested:
    """Stop cleanly: issue nothing more, commit what is buffered."""


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
    """Journal a rejecting receipt and close the task; attempt 0 where no update caused it."""

    task_id: str
    client_id: str
    reason: str
    attempt: int = 0


@dataclass(frozen=True)
class DiscardMessage:
    """The message settles nothing: dead-letter it with the reason."""

    reason: str


@dataclass(frozen=True)
class RepeatReceipt:
    """The task has its receipt: publish that again."""

    task_id: str


@dataclass(frozen=True)
class CommitPart:
    """One update's share of a commit: coefficient = weight · staleness · participation · clip · η.

    `score` is the contribution score s_i, `weight` w_i after scale, softmax, floor and cap.
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
    """Make the next version: θ + Σ coefficient_i · Δ_i."""

    version: int
    phase: int
    parts: tuple[CommitPart, ...]


@dataclass(frozen=True)
class AdmitClient:
    """Journal a client that takes part from now on, or whose rows have changed."""

    client: Client
    nonce: int = 0


@dataclass(frozen=True)
class DismissClient:
    """A client may not take part, or (`left`) not any more: tell its site why."""

    client_id: str
    site: str
    reason: str
    left: bool = False
    nonce: int = 0


@dataclass(frozen=True)
class ReplyToCommand:
    """Journal what became of a command, and tell who asked; `paused` where that has changed."""

    command: Command
    refused: str = ""
    paused: bool | None = None


@dataclass(frozen=True)
class LogEvent:
    """An entry for the event feed."""

    level: str
    kind: str
    text: str
    refs: tuple[tuple[str, str | int | float], ...] = ()


@dataclass(frozen=True)
class FinishRun:
    """Nothing is left to do: `complete` when the plan is fulfilled, `failed` if it cannot be."""

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

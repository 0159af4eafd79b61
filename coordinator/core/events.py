"""Events that the coordinator receives, and actions that it decides on.

`coordinator/core/machine.py` maps events to actions and does nothing else. A driver, such as
`coordinator/service.py`, feeds it the events and carries the actions out, journal first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from common.config.config import ContributionSource
from common.protocol.commands import Command
from common.protocol.evaluations import EvalResult
from common.protocol.fields import RowKind
from common.protocol.kinds import EventKind, RejectionKind
from common.protocol.updates import ContributionStats
from coordinator.core.state import BufferedUpdate, Client, OpenEvaluation, OpenTask

MAX_TEXT = 500  # characters; the limit of `common.protocol.fields.ShortText`

EventLevel = Literal["info", "warning", "error"]


@dataclass(frozen=True)
class Rejection:
    """Reason why something does not count: a kind for programs, a text for people."""

    kind: RejectionKind
    reason: str


# events


@dataclass(frozen=True)
class Tick:
    """Passing of time."""


@dataclass(frozen=True)
class WorkerSignal:
    """Content of one live heartbeat: a claim, which may renew a lease but proves nothing."""

    site: str
    busy: bool
    task_id: str | None
    wishes: tuple[str, ...] = ()  # clients that have learned from their users and want a task
    resting: bool = False  # outside the hours of its site: it takes no task, but may end one


@dataclass(frozen=True)
class HeartbeatsRead:
    """All live heartbeats; none are known while the store is out of reach (`store_up` is false)."""

    signals: tuple[WorkerSignal, ...]
    store_up: bool = True


@dataclass(frozen=True)
class UpdateArrived:
    """Complete update with checked tensors, on which admission has yet to decide."""

    task_id: str
    attempt: int
    client_id: str
    worker_id: str
    site: str
    phase: int
    base_version: int
    stats: ContributionStats
    norm: float  # L2, over all decoded tensors
    problem: Rejection | None  # of the tensors
    nbytes: int
    upload: str  # name of its file in the spool


@dataclass(frozen=True)
class DuplicateArrived:
    """Message about a task whose receipt is already in the journal."""

    task_id: str


@dataclass(frozen=True)
class TaskRefused:
    """Answer of a worker that cannot train a task."""

    task_id: str
    attempt: int
    client_id: str
    site: str
    reason: str
    declines: bool = False  # the site does not evaluate, for as long as the run lasts


@dataclass(frozen=True)
class EvaluationArrived:
    """Answer to an evaluation task, on which admission has yet to decide."""

    result: EvalResult
    site: str


@dataclass(frozen=True)
class UpdateScore:
    """Score of an accepted update that its client cannot inflate.

    Attributes:
        task_id: Its training task.
        score: Drop in loss with the update applied (`server`, `federated`), or cosine; NaN if it
            cannot be computed.
        seconds: What computing it took, of all evaluators together.
        nbytes: Bytes that travelled for it.
    """

    task_id: str
    score: float
    seconds: float = 0.0
    nbytes: int = 0


@dataclass(frozen=True)
class ScoresArrived:
    """Scores that a driver has computed (sources `server` and `cosine`)."""

    scores: tuple[UpdateScore, ...]


@dataclass(frozen=True)
class EnrolmentRequested:
    """Request of an invited site's client to take part, with the limits of the invitation."""

    client_id: str
    site: str
    rows: Mapping[RowKind, int]  # training rows that it claims to have
    max_clients: int  # of the site
    max_rows: int  # of each kind
    nonce: int = 0
    shares_updates: bool = False


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
    """Request to stop cleanly: issue nothing more, commit the buffer, end."""


CoordinatorEvent = (
    Tick
    | HeartbeatsRead
    | UpdateArrived
    | DuplicateArrived
    | TaskRefused
    | EvaluationArrived
    | ScoresArrived
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
class IssueEvaluation:
    """Journal an evaluation's newest attempt and put it on its site's queue."""

    evaluation: OpenEvaluation
    site: str


@dataclass(frozen=True)
class AcceptEvaluation:
    """Journal the answer to an evaluation, with its receipt."""

    evaluation: OpenEvaluation
    result: EvalResult


@dataclass(frozen=True)
class CloseEvaluation:
    """Journal a rejecting receipt and close the evaluation; attempt 0 if no answer caused it."""

    task_id: str
    client_id: str
    rejection: Rejection
    attempt: int = 0


@dataclass(frozen=True)
class OpenRound:
    """Journal that the evaluation of a version, with the objective of a phase, is due."""

    version: int
    phase: int


@dataclass(frozen=True)
class CloseRound:
    """Journal that the evaluation of a version has ended, and which clients did not answer."""

    version: int
    phase: int
    missing: tuple[str, ...] = ()
    answered: int = 0  # number of clients


@dataclass(frozen=True)
class RequestScores:
    """Ask the driver for scores of accepted updates.

    For `server` they come later. For `cosine` they follow at once: all updates belong to one buffer
    and are compared with each other. `federated` scores need no request: they are evaluations.
    """

    source: ContributionSource
    updates: tuple[BufferedUpdate, ...]


@dataclass(frozen=True)
class RecordScores:
    """Journal scores of accepted updates."""

    source: ContributionSource
    scores: tuple[UpdateScore, ...]


@dataclass(frozen=True)
class AcceptUpdate:
    """Journal an update as accepted, with its receipt: it will be applied from then on."""

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
    """Dead-letter the message, because its sender may not answer the task."""

    rejection: Rejection


@dataclass(frozen=True)
class RepeatReceipt:
    """Publish the receipt of a task again."""

    task_id: str


@dataclass(frozen=True)
class CommitPart:
    """Share of one update in a commit; `coordinator/aggregation/coefficients.py` computes it."""

    update: BufferedUpdate
    staleness: int  # τᵢ, in versions
    score: float  # contribution score of its client
    weight: float  # wᵢ, the client's weight divided by the number of its updates in the buffer
    staleness_factor: float  # s(τᵢ)
    participation_factor: float  # rᵢ
    coefficient: float  # factor of the delta Δᵢ in the next version


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
    """Journal the outcome of a command and answer it."""

    command: Command
    refused: str = ""  # reason for which it was not carried out
    paused: bool | None = None  # new state of the run, if the command has changed it


@dataclass(frozen=True)
class LogEvent:
    """Journal an entry of the event feed and publish it; made by `log_event`."""

    level: EventLevel
    kind: EventKind
    text: str
    refs: tuple[tuple[str, str | int | float], ...] = ()


@dataclass(frozen=True)
class FinishRun:
    """End the run: `complete` if the plan is fulfilled, `failed` if it can never be."""

    complete: bool
    reason: str
    failed: bool = False


Action = (
    IssueTask
    | IssueEvaluation
    | AcceptEvaluation
    | CloseEvaluation
    | OpenRound
    | CloseRound
    | RequestScores
    | RecordScores
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
    """Return a feed entry that refers to `refs`; a text that is too long is cut."""
    return LogEvent(level, kind, text[:MAX_TEXT], tuple(refs.items()))

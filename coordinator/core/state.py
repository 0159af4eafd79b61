"""Plan of a run, which never changes, and the state of the coordinator, which events change.

Both are frozen. After a crash `coordinator/storage/recovery.py` rebuilds the same state from the
journal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from common.config.config import AggregationConfig, PhaseConfig, PrivacyConfig, ScheduleConfig
from common.protocol.fields import RowKind
from common.protocol.updates import ContributionStats
from coordinator.core.pace import Pace
from coordinator.persistent.ordered_map import OrderedMap

if TYPE_CHECKING:
    from coordinator.core.client_index import ClientIndex

NORM_HISTORY = 50  # norms of accepted updates that the running median covers
STRIKES = 3  # closed tasks and rejected updates in a row until a client is quarantined
REFUSALS = 3  # refusals of one task, by any workers, until it is closed


@dataclass(frozen=True)
class Client:
    """Owner of private data: its site, and its number of training rows of each kind."""

    client_id: str
    site: str
    rows: Mapping[RowKind, int]
    shares_updates: bool = True  # whether other clients may evaluate its updates, and it theirs


@dataclass(frozen=True)
class EvaluationPlan:
    """What clients evaluate on their own validation rows.

    Attributes:
        federated: Whether version 0, phase ends and the last version are evaluated.
        every: The interval of further versions to evaluate, if any.
        deadline_s: Time after which an evaluation that was not answered is given up.
        max_rows: Limit of a client's rows per evaluation.
        max_length: Limit of a row's tokens.
        classes: Number of classes; 0 unless texts are classified.
        available: Whether clients can evaluate at all; those of runs of schema 1 cannot.
    """

    federated: bool = False
    every: int | None = None
    deadline_s: float = 600.0
    max_rows: int = 200
    max_length: int = 512
    classes: int = 0
    available: bool = True


@dataclass(frozen=True)
class Plan:
    """Phases, settings and the clients that the coordinator dealt rows to.

    Clients of invited sites join later and are not in `clients` (see `CoordinatorState.joined`).
    """

    phases: tuple[PhaseConfig, ...]
    schedule: ScheduleConfig
    aggregation: AggregationConfig
    clients: Mapping[str, Client]
    evaluation: EvaluationPlan = EvaluationPlan()
    min_clients: int = 1  # live ones; below that nothing is issued or committed
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Place of each client in the plan."""
        return {name: place for place, name in enumerate(self.clients)}

    @property
    def total_versions(self) -> int:
        """Version that ends the last phase."""
        return sum(phase.versions for phase in self.phases)

    def phase_of(self, version: int) -> int:
        """Return the phase that trains from `version`; after the last one, the number of phases."""
        end = 0
        for index, phase in enumerate(self.phases):
            end += phase.versions
            if version < end:
                return index
        return len(self.phases)

    def phase_end(self, phase: int) -> int:
        """Return the version that ends a phase."""
        return sum(p.versions for p in self.phases[: phase + 1])

    def current_phase(self, version: int) -> int:
        """Return the phase that trains from `version`; after the last one, the last one."""
        return min(self.phase_of(version), len(self.phases) - 1)

    def phase_before(self, version: int) -> int:
        """Return the phase that made `version`; the first one for version 0."""
        return self.phase_of(max(0, version - 1))

    def reference_version(self, phase: int) -> int | None:
        """Return the version that a preference phase compares with: its first base version."""
        if phase >= len(self.phases) or self.phases[phase].objective not in ("dpo", "kto"):
            return None
        return self.phase_end(phase - 1) if phase else 0

    def rows(self, client: Client, phase: int) -> int:
        return client.rows.get(self.phases[phase].kind, 0)

    @property
    def kinds(self) -> tuple[RowKind, ...]:
        """Kinds of rows that the phases learn from, in the order of the phases."""
        return tuple(dict.fromkeys(phase.kind for phase in self.phases))


@dataclass(frozen=True)
class OpenTask:
    """Issued task without a receipt."""

    task_id: str
    client_id: str
    phase: int
    seed: int
    bases: tuple[int, ...]  # base version of every attempt; attempt 1 is at index 0
    issued_at: float
    lease_until: float
    refusals: int = 0  # by workers that could not train it
    parked: bool = False  # its site is silent; the task does not count as running until it is back
    steps: int = 0  # local steps by the client's speed; 0: those of the phase

    @property
    def attempt(self) -> int:
        """Number of the newest attempt, from 1."""
        return len(self.bases)

    @property
    def base_version(self) -> int:
        return self.bases[-1]


@dataclass(frozen=True)
class OpenEvaluation:
    """Issued evaluation without a receipt.

    Attributes:
        version: The version to evaluate.
        phase: The phase whose objective and rows it is evaluated with.
        candidate: Id of the training task whose update is scored on this client's rows; empty for
            an evaluation of the version itself.
    """

    task_id: str
    client_id: str
    version: int
    phase: int
    issued_at: float  # of the first attempt
    lease_until: float
    attempt: int = 1
    candidate: str = ""


@dataclass(frozen=True)
class EvaluationRound:
    """Evaluation of one version by all clients that can; it ends with the last answer or in time.

    Version 0 is evaluated with the first phase, another one with the phase that made it. The end of
    a phase has a second round with the next phase, whose beginning it is.

    Attributes:
        version: The version.
        phase: The phase whose objective and rows it is evaluated with.
        opened_at: Time at which it became due.
        asked: Clients that got an evaluation task for it, including those that have answered.
        answered: Clients whose answer was accepted.
    """

    version: int
    phase: int
    opened_at: float
    asked: frozenset[str] = frozenset()
    answered: frozenset[str] = frozenset()

    def covers(self, evaluation: OpenEvaluation) -> bool:
        """Return whether an evaluation belongs to this round."""
        same = (evaluation.version, evaluation.phase) == (self.version, self.phase)
        return same and not evaluation.candidate


@dataclass(frozen=True)
class CandidateAnswer:
    """Drop in loss that one client measured with the update of another one applied."""

    task_id: str  # of the training
    drop: float
    seconds: float
    nbytes: int


@dataclass(frozen=True)
class BufferedUpdate:
    """Accepted update that waits for the next commit; `upload` is its file in the spool."""

    task_id: str
    attempt: int
    client_id: str
    worker_id: str
    base_version: int
    stats: ContributionStats
    clip: float
    nbytes: int
    upload: str


@dataclass(frozen=True)
class ClientState:
    """History of one client."""

    issued: int = 0  # tasks
    participation: int = 0  # updates that were applied
    last_stats: ContributionStats | None = None  # of its newest accepted update in this phase
    last_score: float | None = None  # newest score of its updates in this phase, if they have any
    strikes: int = 0  # closed tasks and rejected updates since its last accepted update
    paces: tuple[Pace, ...] = ()  # of its last updates in this phase, with `adaptive_steps`

    @property
    def quarantined(self) -> bool:
        return self.strikes >= STRIKES


NEW_CLIENT = ClientState()


class Members(Mapping[str, Client]):
    """Clients of the plan, then those that joined."""

    def __init__(self, dealt: Mapping[str, Client], joined: Mapping[str, Client]) -> None:
        self._dealt, self._joined = dealt, joined

    def __getitem__(self, client_id: str) -> Client:
        found = self._joined.get(client_id)
        return self._dealt[client_id] if found is None else found

    def __iter__(self) -> Iterator[str]:
        yield from self._dealt
        yield from (name for name in self._joined if name not in self._dealt)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(frozen=True)
class CoordinatorState:
    """Everything that decides what the coordinator does next.

    Attributes:
        norms: Norms of accepted updates of this phase after clipping, oldest first.
        issued: Tasks ever issued; the next task's number follows from it.
        round_at: Time at which the newest tasks were first issued; starts a round's deadline.
        buffered_at: Time at which the oldest update of the buffer was accepted.
        joined: Clients of invited sites, which bring their own rows.
        workers_by_site: Number of live workers of every site that has any, without those that rest.
        resting_by_site: Number of live workers that rest outside the hours of their site.
        wishes: Clients that want a task, to send what they have learned from their users.
        stopping: Issue nothing, commit the buffer immediately and end.
        draining: Issue no new task, and stop once no task is open.
        paused: Issue nothing until an operator resumes the run; accept updates as usual.
        round_issued: The tasks of this version's round were issued (synchronous schedule).
        seen_at: Time of the newest heartbeat of every site that has sent one.
        min_clients: Number of live clients below which nothing is issued or committed, as an
            operator set it; None: that of the plan.
        evaluations: Open evaluations, by task id.
        rounds: Versions whose evaluation has not ended, oldest first.
        evaluated: Newest version of which a round was opened; -1 if none was.
        evaluations_issued: Evaluations ever issued; the next one's number follows from it.
        declined: Clients that do not evaluate.
        scores: Scores of buffered updates, by task id, where the source is one that clients cannot
            inflate.
        scoring: Buffered updates whose score was requested.
        unscored: Those of them whose score cannot be computed.
        answers: Accepted answers of evaluations that score a buffered update without a score, by
            the evaluation's task id.
        full_at: Time at which a buffer that waits for scores was first ready; 0 if there is none.
        short: The feed says that fewer clients than the minimum are live.
        index: Index of an earlier state of this run; `coordinator/core/index_update.py` updates it.
    """

    version: int = 0
    tasks: OrderedMap[str, OpenTask] = field(default_factory=OrderedMap)
    buffer: tuple[BufferedUpdate, ...] = ()
    clients: OrderedMap[str, ClientState] = field(default_factory=OrderedMap)
    norms: tuple[float, ...] = ()
    issued: int = 0
    round_at: float = 0.0
    buffered_at: float = 0.0
    joined: OrderedMap[str, Client] = field(default_factory=OrderedMap)
    workers_by_site: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    resting_by_site: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    wishes: frozenset[str] = frozenset()
    store_up: bool = True
    stopping: bool = False
    draining: bool = False
    paused: bool = False
    round_issued: bool = False
    seen_at: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    min_clients: int | None = None
    evaluations: Mapping[str, OpenEvaluation] = field(default_factory=lambda: MappingProxyType({}))
    rounds: tuple[EvaluationRound, ...] = ()
    evaluated: int = -1
    evaluations_issued: int = 0
    declined: frozenset[str] = frozenset()
    scores: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    scoring: frozenset[str] = frozenset()
    unscored: frozenset[str] = frozenset()
    answers: Mapping[str, CandidateAnswer] = field(default_factory=lambda: MappingProxyType({}))
    full_at: float = 0.0
    short: bool = False
    index: ClientIndex | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("tasks", "clients", "joined"):
            if type(getattr(self, name)) is not OrderedMap:  # any other mapping is accepted, too
                object.__setattr__(self, name, OrderedMap.of(getattr(self, name)))

    def members(self, plan: Plan) -> Mapping[str, Client]:
        """Return all clients that may train: the plan's first, then those that joined."""
        return Members(plan.clients, self.joined) if self.joined else plan.clients

    def changed(self, **parts: Any) -> CoordinatorState:
        """Return a copy with other parts; `replace` takes eight times as long, but is checked."""
        copy = object.__new__(CoordinatorState)
        copy.__dict__.update(self.__dict__)
        copy.__dict__.update(parts)
        return copy

    def with_index(self, index: ClientIndex) -> CoordinatorState:
        return self.changed(index=index)

    def with_member(self, client: Client) -> CoordinatorState:
        return self.changed(joined=self.joined.put(client.client_id, client))

    def without_member(self, client_id: str) -> CoordinatorState:
        return self.changed(joined=self.joined.remove(client_id))

    def client(self, client_id: str) -> ClientState:
        return self.clients.get(client_id) or NEW_CLIENT

    def with_client(self, client_id: str, client: ClientState) -> CoordinatorState:
        return self.changed(clients=self.clients.put(client_id, client))

    def with_clients(self, clients: Iterable[tuple[str, ClientState]]) -> CoordinatorState:
        return self.changed(clients=self.clients.update(clients))

    def with_task(self, task: OpenTask) -> CoordinatorState:
        return self.changed(tasks=self.tasks.put(task.task_id, task))

    def with_tasks(self, tasks: Iterable[OpenTask]) -> CoordinatorState:
        return self.changed(tasks=self.tasks.update((task.task_id, task) for task in tasks))

    def without_task(self, task_id: str) -> CoordinatorState:
        return self.changed(tasks=self.tasks.remove(task_id))

    def with_evaluation(self, evaluation: OpenEvaluation) -> CoordinatorState:
        """Return the state with an evaluation that is open, in place of its earlier attempt."""
        opened = {**self.evaluations, evaluation.task_id: evaluation}
        return replace(self, evaluations=MappingProxyType(opened))

    def without_evaluation(self, task_id: str) -> CoordinatorState:
        remaining = {key: each for key, each in self.evaluations.items() if key != task_id}
        return replace(self, evaluations=MappingProxyType(remaining))

    def with_round(self, changed: EvaluationRound) -> CoordinatorState:
        """Return the state with an open round in place of the one of that version and phase."""
        key = (changed.version, changed.phase)
        rounds = tuple(changed if (r.version, r.phase) == key else r for r in self.rounds)
        return replace(self, rounds=rounds)

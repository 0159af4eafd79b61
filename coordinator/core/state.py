"""What the coordinator knows: the plan, fixed for a run, and the state, which events change.

Both are frozen. The journal rebuilds the same state after a crash (`coordinator/storage/recovery.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from common.config.config import AggregationConfig, PhaseConfig, ScheduleConfig
from common.protocol.fields import RowKind
from common.protocol.updates import ContributionStats

NORM_HISTORY = 50  # accepted update norms that the running median looks at
STRIKES = 3  # closed tasks and rejected updates in a row until a client is quarantined
REFUSALS = 3  # of one task, by whichever workers, until it is closed


@dataclass(frozen=True)
class Client:
    """An owner of private data: its site, and the training rows of each kind that it has."""

    client_id: str
    site: str
    rows: Mapping[RowKind, int]


@dataclass(frozen=True)
class Plan:
    """What a run sets out to do; does not change while it runs.

    `clients` are those whose rows the coordinator dealt itself; others join (`State.joined`).
    """

    phases: tuple[PhaseConfig, ...]
    schedule: ScheduleConfig
    aggregation: AggregationConfig
    clients: Mapping[str, Client]

    @property
    def total_versions(self) -> int:
        """The version with which the last phase ends."""
        return sum(phase.versions for phase in self.phases)

    def phase_of(self, version: int) -> int:
        """The phase in which tasks from `version` train; past the end, the number of phases."""
        end = 0
        for index, phase in enumerate(self.phases):
            end += phase.versions
            if version < end:
                return index
        return len(self.phases)

    def phase_end(self, phase: int) -> int:
        """The version that ends a phase."""
        return sum(p.versions for p in self.phases[: phase + 1])

    def reference(self, phase: int) -> int | None:
        """The version that a phase compares with: where it began, if it learns preferences."""
        if phase >= len(self.phases) or self.phases[phase].objective != "dpo":
            return None
        return self.phase_end(phase - 1) if phase else 0

    def rows(self, client: Client, phase: int) -> int:
        """The rows from which a client learns in a phase; 0 if it has none of that kind."""
        return client.rows.get(self.phases[phase].kind, 0)

    @property
    def kinds(self) -> tuple[RowKind, ...]:
        """The kinds of rows that the phases learn from, in their order."""
        return tuple(dict.fromkeys(phase.kind for phase in self.phases))


@dataclass(frozen=True)
class OpenTask:
    """An issued task without a receipt. `bases[i]` is the version that attempt i+1 starts from."""

    task_id: str
    client_id: str
    phase: int
    seed: int
    bases: tuple[int, ...]
    issued_at: float
    lease_until: float
    refusals: int = 0
    parked: bool = False
    """Its site is silent: it holds no place among the tasks in flight until the site is back."""

    @property
    def attempt(self) -> int:
        """The newest attempt, from 1."""
        return len(self.bases)

    @property
    def base_version(self) -> int:
        """The version of the newest attempt."""
        return self.bases[-1]


@dataclass(frozen=True)
class BufferedUpdate:
    """An accepted update that waits for the next commit."""

    task_id: str
    attempt: int
    client_id: str
    worker_id: str
    base_version: int
    stats: ContributionStats
    clip: float
    nbytes: int
    upload: str  # its file in the spool


@dataclass(frozen=True)
class ClientState:
    """What the coordinator has seen of one client."""

    issued: int = 0
    participation: int = 0  # updates of it that were applied
    last: ContributionStats | None = None
    strikes: int = 0

    @property
    def quarantined(self) -> bool:
        """Gets no more tasks: its updates were refused too often in a row."""
        return self.strikes >= STRIKES


@dataclass(frozen=True)
class CoordinatorState:
    """Everything that decides what happens next."""

    version: int = 0
    tasks: Mapping[str, OpenTask] = field(default_factory=lambda: MappingProxyType({}))
    buffer: tuple[BufferedUpdate, ...] = ()
    clients: Mapping[str, ClientState] = field(default_factory=lambda: MappingProxyType({}))
    norms: tuple[float, ...] = ()
    issued: int = 0  # tasks ever issued; numbers the next one
    round_at: float = 0.0  # when the newest tasks were first issued: a round's deadline counts on
    buffered_at: float = 0.0  # when the buffer's first update was accepted
    joined: Mapping[str, Client] = field(default_factory=lambda: MappingProxyType({}))
    """Clients of invited sites, who bring their own rows."""
    sites: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Live workers by site; silent sites are missing."""
    wishes: frozenset[str] = frozenset()
    """Clients that ask for a task, to send what they have learned from their users."""
    store_up: bool = True
    stopping: bool = False
    """A stop: nothing more is issued, what is buffered is committed at once."""
    draining: bool = False
    """A drain: nothing more is issued; it becomes a stop once no task is open."""
    paused: bool = False
    """Nothing is issued until an operator says so; updates are taken as ever."""
    round_issued: bool = False  # sync: this version's round is out

    def members(self, plan: Plan) -> Mapping[str, Client]:
        """Everyone who may train: the plan's clients, then those that joined."""
        return {**plan.clients, **self.joined} if self.joined else plan.clients

    def with_member(self, client: Client) -> CoordinatorState:
        """A state in which a client has joined, or has other rows than before."""
        return replace(self, joined=MappingProxyType({**self.joined, client.client_id: client}))

    def without_member(self, client_id: str) -> CoordinatorState:
        """A state in which a client that joined has left."""
        left = {key: client for key, client in self.joined.items() if key != client_id}
        return replace(self, joined=MappingProxyType(left))

    def client(self, client_id: str) -> ClientState:
        """The state of a client, fresh where nothing is known yet."""
        return self.clients.get(client_id, ClientState())

    def with_client(self, client_id: str, client: ClientState) -> CoordinatorState:
        """A state in which one client's is replaced."""
        return replace(self, clients=MappingProxyType({**self.clients, client_id: client}))

    def with_task(self, task: OpenTask) -> CoordinatorState:
        """A state in which one open task is added or replaced."""
        return replace(self, tasks=MappingProxyType({**self.tasks, task.task_id: task}))

    def without_task(self, task_id: str) -> CoordinatorState:
        """A state in which a task is no longer open."""
        left = {key: task for key, task in self.tasks.items() if key != task_id}
        return replace(self, tasks=MappingProxyType(left))

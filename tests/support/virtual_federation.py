"""Federation in virtual time: the coordinator's core, and workers with speeds and faults.

There is no broker, no clock and no training. `Federation` drives `coordinator.core.machine.step` as
the service does: tasks and evaluations go to a site's queue, live workers take them, and their
answers come back after a while, late, twice or never, and are sent again until there is a receipt.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from common.config.config import AggregationConfig, PhaseConfig, ScheduleConfig
from common.evaluation.sums import EvaluationSums
from common.protocol.evaluations import EvalResult
from common.protocol.updates import ContributionStats
from coordinator.core import machine
from coordinator.core.events import (
    AcceptEvaluation,
    AcceptUpdate,
    Action,
    CloseEvaluation,
    CloseRound,
    CloseTask,
    CommitVersion,
    CoordinatorEvent,
    DiscardMessage,
    EvaluationArrived,
    FinishRun,
    HeartbeatsRead,
    IssueEvaluation,
    IssueTask,
    LogEvent,
    OpenRound,
    RecordScores,
    RequestScores,
    ScoresArrived,
    TaskRefused,
    UpdateArrived,
    UpdateScore,
    WorkerSignal,
)
from coordinator.core.state import (
    Client,
    CoordinatorState,
    EvaluationPlan,
    OpenEvaluation,
    OpenTask,
    Plan,
)

REPUBLISH_S = 60.0
PULSE_S = 1.0


def make_stats(
    samples: int = 100, loss: float = 2.0, after: float | None = None
) -> ContributionStats:
    return ContributionStats(
        num_samples=samples,
        num_tokens=1000 if samples else 0,
        steps=10,
        avg_loss=loss,
        loss_before=min(loss + 0.1, 1e4),
        loss_after=loss if after is None else after,
        train_seconds=1.0,
        delta_norm=1.0,
    )


def make_plan(
    clients: int | Mapping[str, Client] = 4,
    *,
    versions: int | Sequence[int] = 4,
    rows: int = 100,
    aggregation: AggregationConfig | None = None,
    evaluation: EvaluationPlan | None = None,
    min_clients: int = 1,
    **schedule: object,
) -> Plan:
    if isinstance(clients, int):
        named = [f"c{i}" for i in range(clients)]
        clients = {name: Client(name, "local", {"sft": rows}) for name in named}
    spans = [versions] if isinstance(versions, int) else versions
    return Plan(
        tuple(PhaseConfig(versions=span) for span in spans),
        ScheduleConfig.model_validate(schedule),
        aggregation or AggregationConfig(),
        MappingProxyType(dict(clients)),
        evaluation or EvaluationPlan(),
        min_clients,
    )


def make_update(task: OpenTask, site: str = "local", **changed: object) -> UpdateArrived:
    """Return a flawless update for the newest attempt of a task, with some fields changed."""
    fields: dict[str, object] = {
        "task_id": task.task_id,
        "attempt": task.attempt,
        "client_id": task.client_id,
        "worker_id": "w0",
        "site": site,
        "phase": task.phase,
        "base_version": task.base_version,
        "stats": make_stats(),
        "norm": 1.0,
        "problem": None,
        "nbytes": 100,
        "upload": f"{site}.{task.task_id}.{task.attempt}",
    }
    return UpdateArrived(**{**fields, **changed})  # type: ignore[arg-type]


def make_result(
    evaluation: OpenEvaluation, loss: float = 2.0, candidate: float = 1.5, **changed: object
) -> EvaluationArrived:
    """Return a flawless answer to an evaluation, with mean losses, and with some fields changed."""
    sums = EvaluationSums(rows=10, loss=100 * loss, tokens=100)
    fields: dict[str, object] = {
        "task_id": evaluation.task_id,
        "attempt": evaluation.attempt,
        "client_id": evaluation.client_id,
        "worker_id": "w0",
        "version": evaluation.version,
        "sums": sums,
        "seconds": 1.0,
        "nbytes": 50,
        "candidate_sums": sums.model_copy(update={"loss": 100 * candidate})
        if evaluation.candidate
        else None,
    }
    site = str(changed.pop("site", "local"))
    return EvaluationArrived(EvalResult(**{**fields, **changed}), site)  # type: ignore[arg-type]


Message = UpdateArrived | EvaluationArrived


def task_of(message: Message) -> str:
    return message.task_id if isinstance(message, UpdateArrived) else message.result.task_id


@dataclass
class Worker:
    """Worker that takes `seconds` for a task, is gone during `away`, and may refuse every task."""

    name: str
    seconds: float = 10.0
    site: str = "local"
    away: Sequence[tuple[float, float]] = ()
    refuses: bool | Sequence[str] = False  # all tasks, or those of some clients
    declines: bool = False  # evaluations
    task: OpenTask | OpenEvaluation | None = None

    def alive(self, now: float) -> bool:
        return not any(start <= now < end for start, end in self.away)


def on_time(_: Message) -> Sequence[float]:
    """Deliver every message once, after a tenth of a second."""
    return (0.1,)


@dataclass
class Log:
    """Actions that the coordinator decided on, in order."""

    issued: list[IssueTask] = field(default_factory=list)
    accepted: list[AcceptUpdate] = field(default_factory=list)
    closed: list[CloseTask] = field(default_factory=list)
    discarded: list[DiscardMessage] = field(default_factory=list)
    commits: list[CommitVersion] = field(default_factory=list)
    notes: list[LogEvent] = field(default_factory=list)
    asked: list[IssueEvaluation] = field(default_factory=list)
    answered: list[AcceptEvaluation] = field(default_factory=list)
    unanswered: list[CloseEvaluation] = field(default_factory=list)
    opened: list[OpenRound] = field(default_factory=list)
    ended: list[CloseRound] = field(default_factory=list)
    scored: list[RecordScores] = field(default_factory=list)
    times: dict[int, float] = field(default_factory=dict)  # when each version was committed

    def applied(self) -> list[str]:
        return [part.update.task_id for commit in self.commits for part in commit.parts]

    def versions(self) -> list[int]:
        return [commit.version for commit in self.commits]


OnStep = Callable[[CoordinatorState, CoordinatorState, tuple[Action, ...], float], None]


class Federation:
    """Run in virtual time; `run` starts it."""

    def __init__(
        self,
        plan: Plan,
        workers: Sequence[Worker],
        *,
        network: Callable[[Message], Sequence[float]] = on_time,
        scorer: Callable[[RequestScores], Sequence[UpdateScore]] | None = None,
        store_down: Sequence[tuple[float, float]] = (),
        on_step: OnStep | None = None,
    ) -> None:
        """Prepare a run.

        Args:
            plan: Plan of the run.
            workers: Workers of all sites.
            network: Returns after how many seconds each copy of an answer arrives; an empty
                sequence loses it.
            scorer: Returns the scores that arrive a second after they were requested; by default
                a drop of 0.5 for each update.
            store_down: Spans of time in which the store is out of reach.
            on_step: Called with the state before and after every step, its actions and the time.
        """
        self.plan, self.workers = plan, workers
        self.state, self.log, self.now = CoordinatorState(), Log(), 0.0
        self.finished: FinishRun | None = None
        self._network, self._store_down, self._on_step = network, store_down, on_step
        self._scorer = scorer or (
            lambda request: [UpdateScore(u.task_id, 0.5) for u in request.updates]
        )
        self._queues: dict[str, deque[OpenTask | OpenEvaluation]] = defaultdict(deque)
        self._receipts: set[str] = set()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.at(0.0, self._pulse)

    def run(self, until: float = 100_000.0) -> Federation:
        while self._heap and self.finished is None and self._heap[0][0] <= until:
            self.now, _, happen = heapq.heappop(self._heap)
            happen()
        return self

    def at(self, when: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (when, next(self._order), happen))

    def feed(self, event: CoordinatorEvent) -> tuple[Action, ...]:
        if self.finished is not None:
            return ()
        done = machine.step(self.plan, self.state, event, self.now)
        if self._on_step:
            self._on_step(self.state, done.state, done.actions, self.now)
        self.state = done.state
        for action in done.actions:
            self._carry_out(action)
        return done.actions

    def _carry_out(self, action: Action) -> None:
        match action:
            case IssueTask():
                self.log.issued.append(action)
                self._queues[action.site].append(action.task)
            case AcceptUpdate():
                self.log.accepted.append(action)
                self._receipts.add(action.update.task_id)
            case CloseTask():
                self.log.closed.append(action)
                self._receipts.add(action.task_id)
            case CommitVersion():
                self.log.commits.append(action)
                self.log.times[action.version] = self.now
            case DiscardMessage():
                self.log.discarded.append(action)
            case LogEvent():
                self.log.notes.append(action)
            case FinishRun():
                self.finished = action
            case _:
                self._carry_out_evaluation(action)

    def _carry_out_evaluation(self, action: Action) -> None:
        match action:
            case IssueEvaluation():
                self.log.asked.append(action)
                self._queues[action.site].append(action.evaluation)
            case AcceptEvaluation():
                self.log.answered.append(action)
                self._receipts.add(action.result.task_id)
            case CloseEvaluation():
                self.log.unanswered.append(action)
                self._receipts.add(action.task_id)
            case OpenRound():
                self.log.opened.append(action)
            case CloseRound():
                self.log.ended.append(action)
            case RequestScores():
                arrived = ScoresArrived(tuple(self._scorer(action)))
                self.at(self.now + 1.0, lambda: self.feed(arrived) and None)
            case RecordScores():
                self.log.scored.append(action)

    def _pulse(self) -> None:
        up = not any(start <= self.now < end for start, end in self._store_down)
        for worker in self.workers:
            if not worker.alive(self.now):
                worker.task = None
            elif up and worker.task is None and self._queues[worker.site]:
                self._begin(worker, self._queues[worker.site].popleft())
        signals = tuple(
            WorkerSignal(w.site, w.task is not None, w.task.task_id if w.task else None)
            for w in self.workers
            if w.alive(self.now)
        )
        self.feed(HeartbeatsRead(signals) if up else HeartbeatsRead((), store_up=False))
        self.at(self.now + PULSE_S, self._pulse)

    def _begin(self, worker: Worker, task: OpenTask | OpenEvaluation) -> None:
        worker.task = task
        seconds = worker.seconds * (0.25 if isinstance(task, OpenEvaluation) else 1.0)
        self.at(self.now + seconds, lambda: self._end(worker, task))

    def _end(self, worker: Worker, task: OpenTask | OpenEvaluation) -> None:
        if worker.task is not task or not worker.alive(self.now):
            return  # the worker was killed meanwhile
        worker.task = None
        if isinstance(task, OpenEvaluation):
            self._end_evaluation(worker, task)
            return
        if worker.refuses is True or (worker.refuses and task.client_id in worker.refuses):
            refused = (task.task_id, task.attempt, task.client_id, worker.site, "no base model")
            self.feed(TaskRefused(*refused))
            return
        self._send(make_update(task, worker.site, worker_id=worker.name))

    def _end_evaluation(self, worker: Worker, task: OpenEvaluation) -> None:
        if worker.declines:
            refused = (task.task_id, task.attempt, task.client_id, worker.site, "evaluation is off")
            self.feed(TaskRefused(*refused, declines=True))
            return
        self._send(make_result(task, site=worker.site, worker_id=worker.name))

    def _send(self, message: Message) -> None:
        """Send an answer, and again until there is a receipt, as a worker does from its disk."""
        if task_of(message) in self._receipts:
            return
        for delay in self._network(message):
            self.at(self.now + delay, lambda: self.feed(message) and None)
        self.at(self.now + REPUBLISH_S, lambda: self._send(message))

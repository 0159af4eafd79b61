"""What a run has promised so far, kept from its actions alone, and the checks of every step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest

from coordinator.core.events import (
    AcceptEvaluation,
    AcceptUpdate,
    Action,
    AdmitClient,
    CloseEvaluation,
    CloseTask,
    CommitVersion,
    CoordinatorEvent,
    DismissClient,
    FinishRun,
    HeartbeatsRead,
    IssueEvaluation,
    IssueTask,
    RecordScores,
    ReplyToCommand,
    StopRequested,
)
from coordinator.core.state import Client, CoordinatorState, OpenEvaluation, OpenTask, Plan


@dataclass
class Ledger:
    """Record of all actions of a run, through crashes.

    It keeps its own books of everything that the invariants are about, and looks at the state only
    to compare.
    """

    plan: Plan
    version: int = 0
    attempts: dict[str, list[OpenTask]] = field(default_factory=dict)
    accepted: dict[str, str] = field(default_factory=dict)  # client of each update, by task
    closed: set[str] = field(default_factory=set)
    applied: dict[str, int] = field(default_factory=dict)
    evaluations: dict[str, list[OpenEvaluation]] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    scored: set[str] = field(default_factory=set)
    joined: dict[str, Client] = field(default_factory=dict)
    kicked: set[str] = field(default_factory=set)
    minimum: int | None = None
    paused: bool = False
    # Known to one coordinator only:
    stopping: bool = False
    draining: bool = False
    ended: bool = False
    store_up: bool = True
    sites: frozenset[str] = frozenset()  # with an awake worker, at the newest heartbeats
    seen: dict[str, float] = field(default_factory=dict)

    def message(self, task_id: str, attempt: int) -> OpenTask | OpenEvaluation:
        """Return what an attempt of a task or an evaluation was issued as."""
        if task_id in self.attempts:
            return self.attempts[task_id][attempt - 1]
        return self.evaluations[task_id][attempt - 1]

    def open_tasks(self) -> set[str]:
        return self.attempts.keys() - self.accepted.keys() - self.closed

    def buffer(self) -> list[str]:
        return [task for task in self.accepted if task not in self.applied]

    def restarted(self) -> None:
        """Forget what a coordinator keeps in memory only."""
        self.stopping = self.draining = self.ended = False
        self.store_up, self.sites, self.seen = True, frozenset(), {}

    def record(
        self,
        event: CoordinatorEvent,
        before: CoordinatorState,
        after: CoordinatorState,
        actions: tuple[Action, ...],
        now: float,
    ) -> None:
        """Enter a step, and check it."""
        self._observe(event, now)
        for action in actions:
            match action:
                case IssueTask():
                    self._issue(action, before, after, now)
                case AcceptUpdate():
                    self._accept(action)
                case CloseTask(task_id=task_id):
                    assert task_id in self.open_tasks(), "a task has two receipts"
                    self.closed.add(task_id)
                case CommitVersion():
                    self._commit(action, after, now)
                case ReplyToCommand():
                    self._reply(action)
                case AdmitClient(client=client):
                    self.joined[client.client_id] = client
                case DismissClient(client_id=client_id, left=True):
                    self.joined.pop(client_id, None)
                case FinishRun():
                    self._finish(action, before, after)
                case _:
                    self._record_evaluation(action, after, now)
        self._compare(after, actions)

    def _observe(self, event: CoordinatorEvent, now: float) -> None:
        if isinstance(event, StopRequested):
            self.stopping = True
        if isinstance(event, HeartbeatsRead):
            self.store_up = event.store_up
            if event.store_up:
                self.sites = frozenset(s.site for s in event.signals if not s.resting)
                self.seen |= dict.fromkeys(self.sites, now)

    def _reply(self, reply: ReplyToCommand) -> None:
        if reply.refused:
            return
        match reply.command.action:
            case "pause":
                self.paused = True
            case "resume":
                self.paused = False
            case "drain":
                self.draining, self.paused = True, False
            case "stop":
                self.stopping = True
            case "kick":
                self.kicked.add(reply.command.target)
            case "pardon":
                self.kicked.discard(reply.command.target)
            case "min-clients":
                self.minimum = int(reply.command.target)
            case _:
                pass

    # who may train

    def members(self) -> dict[str, Client]:
        return {**self.plan.clients, **self.joined}

    def live_sites(self, now: float) -> frozenset[str]:
        """Return the sites that are live by the heartbeats that were read."""
        lease = self.plan.schedule.lease_s
        fresh = frozenset(site for site, at in self.seen.items() if now - at <= lease)
        return fresh if self.store_up else self.sites

    def live(self, state: CoordinatorState, phase: int, now: float) -> list[str]:
        """Return the clients that could train in a phase."""
        sites = self.live_sites(now)
        return [
            name
            for name, client in self.members().items()
            if client.site in sites
            and self.plan.rows(client, phase)
            and not state.client(name).quarantined
        ]

    def needed(self) -> int:
        return self.minimum or self.plan.min_clients

    def _enough(self, state: CoordinatorState, version: int, now: float) -> bool:
        phase = self.plan.current_phase(version)
        return self.needed() <= 1 or len(self.live(state, phase, now)) >= self.needed()

    def _may_issue(
        self, state: CoordinatorState, client_id: str, site: str, now: float, *, again: bool
    ) -> None:
        """Check what holds for every message that a site gets."""
        assert self.store_up and not self.paused and not self.stopping and not self.ended
        assert again or not self.draining
        assert self._enough(state, self.version, now), "issued below the minimum"
        client = self.members()[client_id]
        assert client.site == site and site in self.sites | self.live_sites(now)
        assert client_id not in self.kicked, "issued to a client that was kicked"
        assert again or not state.client(client_id).quarantined

    # training

    def _issue(
        self, action: IssueTask, before: CoordinatorState, after: CoordinatorState, now: float
    ) -> None:
        task = action.task
        again = task.attempt > 1
        self._may_issue(after, task.client_id, action.site, now, again=again)
        assert task.base_version == self.version < self.plan.total_versions
        assert task.phase == self.plan.phase_of(self.version)
        if again:
            assert task.task_id in self.open_tasks(), "a closed task is issued again"
            assert task.attempt == len(self.attempts[task.task_id]) + 1
        else:
            assert task.task_id not in self.attempts, "a task id is used twice"
            assert self.plan.rows(self.members()[task.client_id], task.phase)
            newest = [self.attempts[each][-1] for each in self.open_tasks()]
            assert task.client_id not in {each.client_id for each in newest}
            if self.plan.privacy.enabled:
                waiting = [self.accepted[each] for each in self.buffer()]
                assert task.client_id not in waiting, "a version could have two updates of a client"
                assert self._versions_of(task.client_id) < self._cap(), "issued above the cap"
        self.attempts.setdefault(task.task_id, []).append(task)

    def _accept(self, action: AcceptUpdate) -> None:
        update = action.update
        assert update.task_id in self.open_tasks(), "an update is counted twice"
        issued = self.attempts[update.task_id][update.attempt - 1]
        assert issued.client_id == update.client_id
        assert issued.base_version == update.base_version
        assert self.version - update.base_version <= self.plan.schedule.max_staleness
        self.accepted[update.task_id] = update.client_id

    def _commit(self, action: CommitVersion, after: CoordinatorState, now: float) -> None:
        assert action.version == self.version + 1, "a gap between versions"
        tasks = [part.update.task_id for part in action.parts]
        assert tasks == self.buffer(), "a version lacks an update of the buffer, or has others"
        assert not self.applied.keys() & set(tasks), "an update is in two versions"
        assert self._enough(after, self.version, now), "committed below the minimum"
        self._check_weights(action)
        self.version = action.version
        self.applied |= dict.fromkeys(tasks, action.version)
        if self.plan.privacy.enabled:
            self._check_privacy(action)

    def _versions_of(self, client_id: str) -> int:
        return sum(self.accepted[task] == client_id for task in self.applied)

    def _cap(self) -> float:
        return self.plan.privacy.max_versions or math.inf

    def _check_privacy(self, commit: CommitVersion) -> None:
        """Check that without one client's updates the sum differs by at most C/K."""
        clients = [part.update.client_id for part in commit.parts]
        assert len(set(clients)) == len(clients), "two updates of a client in a version"
        assert all(self._versions_of(client) <= self._cap() for client in clients)
        bound = self.plan.aggregation.server_lr / self.plan.schedule.buffer
        assert all(part.coefficient <= bound * part.update.clip for part in commit.parts)

    def _check_weights(self, commit: CommitVersion) -> None:
        contributors = {part.update.client_id for part in commit.parts}
        total = math.fsum(part.weight for part in commit.parts)
        if self.plan.privacy.enabled:
            assert total == pytest.approx(len(commit.parts) / self.plan.schedule.buffer)
        elif len(contributors) == 1:  # measured against clients that are not in the buffer
            assert 0.5 <= total <= 2.0
            assert self.plan.schedule.buffer == 1 or self.needed() == 1
        else:
            assert total == pytest.approx(1.0, abs=1e-9)
        for part in commit.parts:
            factors = (part.weight, part.staleness_factor, part.participation_factor)
            assert all(math.isfinite(each) and each >= 0 for each in factors)
            assert 0 < part.update.clip <= 1 and part.staleness >= 0
            product = math.prod(factors) * part.update.clip * self.plan.aggregation.server_lr
            assert part.coefficient == pytest.approx(product)

    # evaluations

    def _record_evaluation(self, action: Action, after: CoordinatorState, now: float) -> None:
        match action:
            case IssueEvaluation(evaluation=evaluation, site=site):
                again = evaluation.attempt > 1
                self._may_issue(after, evaluation.client_id, site, now, again=again)
                assert not self.draining
                assert evaluation.client_id not in after.declined
                author = self.accepted.get(evaluation.candidate)
                assert evaluation.client_id != author, "a client scores its own update"
                earlier = self.evaluations.setdefault(evaluation.task_id, [])
                assert evaluation.attempt == len(earlier) + 1 <= 3
                assert evaluation.task_id not in self.answered
                earlier.append(evaluation)
            case AcceptEvaluation(result=result):
                self._answer(result.task_id)
            case CloseEvaluation(task_id=task_id):
                self._answer(task_id)
            case RecordScores(scores=scores):
                for score in scores:
                    assert math.isfinite(score.score)
                    assert score.task_id in self.buffer(), "a score of no buffered update"
                    assert score.task_id not in self.scored, "an update has two scores"
                    self.scored.add(score.task_id)
            case _:
                pass

    def _answer(self, task_id: str) -> None:
        assert task_id in self.evaluations and task_id not in self.answered
        self.answered.add(task_id)

    # the end

    def _finish(self, action: FinishRun, before: CoordinatorState, after: CoordinatorState) -> None:
        self.ended = True
        assert action.complete <= (self.version == self.plan.total_versions)
        assert not (action.complete and self.open_tasks()), "a complete run has open tasks"

    def _compare(self, state: CoordinatorState, actions: tuple[Action, ...]) -> None:
        assert state.version == self.version
        assert state.tasks.keys() == self.open_tasks()
        assert state.evaluations.keys() == self.evaluations.keys() - self.answered
        assert [update.task_id for update in state.buffer] == self.buffer()
        assert state.joined == self.joined and state.paused == self.paused
        running = [task for task in state.tasks.values() if not task.parked]
        assert len({task.client_id for task in state.tasks.values()}) == len(state.tasks)
        if self.draining and not running:
            assert any(isinstance(action, FinishRun) for action in actions) or self.ended
        elif not any(isinstance(action, IssueTask) for action in actions):
            return
        returned = sum(len(self.attempts[task.task_id]) > 1 for task in running)
        assert len(running) - returned <= self.plan.schedule.concurrency

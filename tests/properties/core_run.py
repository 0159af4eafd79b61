"""One run of the coordinator's core with its journal, which can be killed at any point.

`CoreRun` does what `coordinator/service.py` does with a step, in the same order: decide, one
transaction, files, outbox. Nothing but the journal survives a crash, and what was published.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np

from common.protocol.layout import TensorLayout
from common.protocol.tensors import Array, Tensors
from common.protocol.versions import VersionSummary
from coordinator.aggregation.rules.factor import FactorRule
from coordinator.core import event_text, machine
from coordinator.core.events import (
    Action,
    CommandReceived,
    CommitVersion,
    CoordinatorEvent,
    DuplicateArrived,
    EvaluationArrived,
    FinishRun,
    IssueEvaluation,
    IssueTask,
    LogEvent,
    RequestScores,
    TaskRefused,
    UpdateArrived,
)
from coordinator.core.index_update import index_of
from coordinator.core.state import BufferedUpdate, CoordinatorState, OpenEvaluation, OpenTask, Plan
from coordinator.storage.commit import write_version
from coordinator.storage.journal import Journal
from coordinator.storage.recovery import recover
from coordinator.storage.spool import Spool
from coordinator.storage.versions import StagedVersion, Versions
from tests.properties.ledger import Ledger
from tests.support.coordinator_records import version_summary

WIDTH = 3  # values of the adapter


class Killed(Exception):
    """End of the coordinator's process inside a transaction."""


class KilledAt(Sequence[Action]):
    """Actions of a step whose coordinator is killed before it has written all of them."""

    def __init__(self, actions: Sequence[Action], at: int) -> None:
        self._actions, self._at = actions, at

    def __iter__(self) -> Iterator[Action]:
        yield from self._actions[: self._at]
        raise Killed

    def __len__(self) -> int:
        return len(self._actions)

    def __getitem__(self, index: Any) -> Any:
        return self._actions[index]


class MemoryVersions:
    """Versions and uploads that are kept in memory, for `write_version`."""

    def __init__(self) -> None:
        self.adapters: dict[int, Tensors] = {0: {"a": np.zeros(WIDTH, np.float32)}}

    def stage(self, version: int, adapter: Tensors, state: bytes = b"") -> StagedVersion:
        self.adapters[version] = adapter
        data = adapter["a"].tobytes()
        return StagedVersion(hashlib.sha256(data).hexdigest(), len(data))

    @staticmethod
    def read_state(version: int) -> Tensors:
        return {}

    def read(self, version: int) -> Tensors:
        return {name: tensor.copy() for name, tensor in self.adapters[version].items()}

    def each_tensor(self, upload: str, _: TensorLayout) -> Iterator[tuple[str, Array]]:
        yield "a", self.delta(upload)

    @staticmethod
    def delta(upload: str) -> Array:
        digest = hashlib.sha256(upload.encode()).digest()
        return np.frombuffer(digest[:WIDTH], np.uint8).astype(np.float32) / 256


class CoreRun:
    """The core of one run, its journal, and the messages that it has published."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.now, self.state = plan, 1e6, CoordinatorState()
        self.ledger = Ledger(plan)
        self.finished: FinishRun | None = None
        self.published: list[OpenTask | OpenEvaluation] = []
        """Attempts that are on the sites' queues, or were."""
        self.wanted: list[BufferedUpdate] = []
        """Updates whose scores were requested from the driver."""
        self.clock_is_steady = True
        self.kill_at: int | None = None
        """Number of actions of the next step after which the coordinator is killed."""
        self._files = MemoryVersions()
        self._journal = Journal.create(Path(":memory:"), {})
        self._journal.put_version(version_summary(0))
        self._journal.take_over()

    def close(self) -> None:
        self._journal.close()

    def feed(self, event: CoordinatorEvent) -> None:
        """Pass an event to the core, unless the journal has the answer to it already."""
        if isinstance(event, CommandReceived) and self._is_answered(event):
            return
        event = self._deduplicate(event)
        before = self.state
        done = machine.step(self.plan, before, event, self.now)
        assert machine.step(self.plan, before, event, self.now) == done, "it depends on something"
        try:
            self._write(before, done.state, done.actions)
        except Killed:
            self.restart()
            return
        self.ledger.record(event, before, done.state, done.actions, self.now)
        self.state = done.state
        check_index(self.plan, self.state)
        self._check_journal()
        if self.kill_at is not None and done.actions:
            self.restart()  # killed after the transaction, before anything was published
            return
        self._publish()
        for action in done.actions:
            match action:
                case RequestScores():
                    self.wanted = [*self.wanted, *action.updates]
                case FinishRun():
                    self.finished = action

    def restart(self) -> None:
        """Replace the coordinator by a new one, which knows only the journal."""
        self.kill_at, self.finished, self.wanted = None, None, []
        self._journal.take_over()
        self.state = recover(self.plan, self._journal, self.now, self.plan.schedule.lease_s)
        self.ledger.restarted()
        self._publish()

    def _is_answered(self, event: CommandReceived) -> bool:
        return self._journal.command_reply(event.command.command_id) is not None

    def _deduplicate(self, event: CoordinatorEvent) -> CoordinatorEvent:
        """Return what `coordinator/ingest/ingest.py` makes of a message."""
        match event:
            case UpdateArrived(task_id=task_id) | TaskRefused(task_id=task_id):
                pass
            case EvaluationArrived(result=result):
                task_id = result.task_id
            case _:
                return event
        return DuplicateArrived(task_id) if self._journal.receipt(task_id) else event

    def _write(
        self, before: CoordinatorState, after: CoordinatorState, actions: tuple[Action, ...]
    ) -> None:
        commits = [action for action in actions if isinstance(action, CommitVersion)]
        summaries = {commit.version: self._commit(commit) for commit in commits}
        entries = [event_text.describe(action, before.version, summaries) for action in actions]
        records: Sequence[Action] = [a for a in actions if not isinstance(a, LogEvent)]
        records = [*records, *(entry for entry in entries if entry is not None)]
        if self.kill_at is not None and self.kill_at < len(records):
            records = KilledAt(records, self.kill_at)
        frames = {}
        for action in actions:
            if isinstance(action, IssueTask | IssueEvaluation):
                task = action.task if isinstance(action, IssueTask) else action.evaluation
                frames[task.task_id] = str(task.attempt).encode()
        if len(records) or before.clients is not after.clients:
            self._journal.write(
                before, after, records, self.now, frames=frames, summaries=summaries
            )

    def _commit(self, commit: CommitVersion) -> VersionSummary:
        """Compute the version as the service does, and check it against the parts."""
        files = self._files
        summary = write_version(
            commit, FactorRule(), cast(Versions, files), cast(Spool, files), self.now
        )
        expected = files.read(commit.version - 1)["a"].astype(np.float64)
        for part in commit.parts:
            expected = expected + part.coefficient * files.delta(part.update.upload)
        made = files.read(commit.version)["a"]
        assert np.isfinite(made).all() and np.allclose(made, expected, rtol=1e-5, atol=1e-5)
        return summary

    def _publish(self) -> None:
        for entry in self._journal.outbox():
            attempt = int(entry.frame)
            self.published.append(self.ledger.message(entry.task_id, attempt))
            self._journal.mark_sent([entry.id])
        on_queues = {(each.task_id, each.attempt) for each in self.published}
        for task in (*self.state.tasks.values(), *self.state.evaluations.values()):
            assert (task.task_id, task.attempt) in on_queues, "an open task was never published"

    def _check_journal(self) -> None:
        """Check that a coordinator that starts now would know what this one knows."""
        found = recover(self.plan, self._journal, self.now, 0.0)
        known, kept = durable(self.plan, self.state), durable(self.plan, found)
        if not self.clock_is_steady:  # a coordinator takes a time in the future for its start
            known, kept = without_times(known), without_times(kept)
        differing = [
            f.name for f in fields(known) if getattr(known, f.name) != getattr(kept, f.name)
        ]
        assert not differing, {
            name: (getattr(known, name), getattr(kept, name)) for name in differing
        }
        # Sums over clients must come out the same bit for bit, so their order counts.
        assert list(found.clients) == list(self.state.clients)
        assert list(found.tasks) == list(self.state.tasks)
        assert self._journal.unapplied_uploads() == {u.upload for u in self.state.buffer}


def durable(plan: Plan, state: CoordinatorState) -> CoordinatorState:
    """Return a state without the parts that the journal does not keep."""
    tasks = {
        name: replace(task, lease_until=0.0, refusals=0, parked=False)
        for name, task in state.tasks.items()
    }
    evaluations = {
        name: replace(each, lease_until=0.0, issued_at=0.0)
        for name, each in state.evaluations.items()
    }
    federated = plan.aggregation.contribution_source == "federated"
    return replace(
        state,
        tasks=MappingProxyType(tasks),
        evaluations=MappingProxyType(evaluations),
        rounds=tuple(replace(each, opened_at=0.0) for each in state.rounds),
        unscored=frozenset(),
        scoring=state.scoring if federated else frozenset(),  # others are requested again
        seen_at=MappingProxyType({}),
        full_at=0.0,
        short=False,
        workers_by_site=MappingProxyType({}),
        resting_by_site=MappingProxyType({}),
        wishes=frozenset(),
        store_up=True,
        stopping=False,
        draining=False,
        buffered_at=state.buffered_at if state.buffer else 0.0,
        index=None,
    )


def check_index(plan: Plan, state: CoordinatorState) -> None:
    """Check that the index that a state carries along is the one that it would get now."""
    known, made = index_of(plan, state), index_of(plan, replace(state, index=None))
    assert known.attention_at <= made.attention_at
    for each in fields(known):
        if each.name not in ("attention_at", "sources"):
            assert getattr(known, each.name) == getattr(made, each.name), each.name


def without_times(state: CoordinatorState) -> CoordinatorState:
    tasks = {name: replace(task, issued_at=0.0) for name, task in state.tasks.items()}
    return replace(state, tasks=MappingProxyType(tasks), round_at=0.0, buffered_at=0.0)

"""Service of a worker on one run: take a task, run it, leave the answer to the publisher, repeat.

The path of a task: `worker/task_source.py` takes it, keeps it on the disk and acks it;
`worker/task_runner.py` fetches base model and adapter, trains, encodes and keeps the update, or
`worker/evaluation_runner.py` evaluates a version and keeps the result;
`worker/publisher.py` publishes it and waits for its receipt. A task is on the disk before
it is acked, and an update before its task is removed: a killed worker continues where it was.
`worker/factory.py` puts the parts together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event as Flag

from common.clock import format_time
from common.errors import (
    BrokerError,
    ConfigError,
    DataError,
    DiskError,
    FcclError,
    ModelError,
    StoreError,
    WireError,
)
from common.memory import release_free_memory
from common.protocol.heartbeat import Heartbeat
from common.protocol.tasks import TaskRefusal, TrainTask
from common.store.store import Store
from worker.evaluation_runner import EvaluationRunner
from worker.event_log import EventLog
from worker.events import WorkerEventKind
from worker.heartbeat import HeartbeatSender
from worker.incremental.learner import Learner
from worker.observer import Observer
from worker.publisher import Publisher
from worker.settings.rest import Rest
from worker.settings.suitability import EvaluationDeclined
from worker.site import run_discovery
from worker.site.enrolment import EnrolmentRequests
from worker.site_task import SiteTask
from worker.spool import Slot
from worker.task_runner import TaskRunner
from worker.task_source import TaskSource
from worker.task_support import TaskResult

IDLE_S = 5.0  # without a task, until the reason is reported
TAKE_S = 1.0  # longest wait for a task; bounds the reaction to a stop and to the end of the run
RETRY_S = 1.0  # pause before a task that could not be trained is tried again, here or elsewhere
MAX_REFUSALS = 3  # in a row, of all clients here; then this worker is broken, not a client
DRAIN_S = 15.0  # to publish what is trained, when the worker stops
UNLIMITED = 2**31


@dataclass(frozen=True)
class WorkerSummary:
    """Numbers of tasks and updates of a worker, and why it ended."""

    trained: int
    evaluated: int
    abandoned: int  # includes tasks that are left for the next start
    settled: int  # updates whose receipt came
    waiting: int  # updates and evaluations without a receipt
    reason: str


@dataclass(frozen=True)
class WorkerParts:
    """Parts of a worker, put together by `worker.factory`."""

    name: str  # of the run
    run: str  # its id
    store: Store
    slot: Slot
    heartbeats: HeartbeatSender
    events: EventLog
    enrolments: EnrolmentRequests
    learner: Learner | None  # None where clients do not learn from their users
    tasks: TaskSource
    runner: TaskRunner
    evaluations: EvaluationRunner
    publisher: Publisher
    metrics: Observer
    rest: Rest
    device_share: Callable[[], str]  # takes this worker's share of the cores, and describes it


class Worker:
    """Serves one run, from `start` to the end of `serve`."""

    def __init__(self, parts: WorkerParts) -> None:
        self._parts = parts
        self._results: Counter[TaskResult] = Counter()
        self._refused: list[str] = []  # clients whose tasks were refused in a row
        self._rests_until: float | None = None  # as last reported
        self._idle_turns = 0  # without a task
        self._disk_refused = False  # and has not been found usable since

    @property
    def worker_id(self) -> str:
        return self._parts.runner.support.worker_id

    def heartbeat(self) -> Heartbeat:
        return self._parts.heartbeats.heartbeat()

    def pending_count(self) -> int:
        return len(self._parts.slot.pending_updates())

    def start(self) -> None:
        """Start sending heartbeats and publishing what an earlier process left."""
        self._parts.heartbeats.start()
        self._parts.publisher.start()
        if self._parts.learner is not None:
            self._parts.learner.start()

    def serve(self, stop: Flag, abandon: Flag) -> WorkerSummary:
        """Work until the run ends, another run takes its name, or `stop` is set; then close.

        `stop` finishes the current task, publishes and ends. `abandon` interrupts the task, which
        stays on the disk.

        Raises:
            ConfigError: Three tasks in a row, and one of every client here, are at odds with the
                settings of the site.
            DataError: Likewise, for lack of usable rows.
            ModelError: Likewise, for lack of the base model, or because training diverged.
            WireError: Likewise, because the store's content is damaged.
            JoinError: The coordinator refuses a client of this invited site, or revoked the site.
        """
        reason = "stopped"
        try:
            while not stop.is_set():
                self._parts.metrics.on_turn()
                if ended := run_discovery.end_reason(
                    self._parts.store, self._parts.name, self._parts.run
                ):
                    reason = ended
                    break
                self._parts.enrolments.poll()
                if self._is_resting():
                    stop.wait(TAKE_S)
                    continue
                if self._parts.learner is not None:
                    self._parts.learner.process_inboxes(stop)
                if self._disk_refuses():
                    stop.wait(RETRY_S)
                    continue
                try:
                    if (task := self._parts.tasks.next_task(TAKE_S)) is not None:
                        self._process(task, abandon)
                    self._report_idleness(task is None)
                except DiskError as error:
                    self._report_disk(error)
        finally:
            waiting = self.close()
        return WorkerSummary(
            trained=self._results[TaskResult.TRAINED],
            evaluated=self._results[TaskResult.EVALUATED],
            abandoned=self._results[TaskResult.ABANDONED] + self._results[TaskResult.INTERRUPTED],
            settled=self._parts.publisher.settled,
            waiting=waiting,
            reason=reason,
        )

    def close(self) -> int:
        """Publish what is trained, stop all parts, and return how many updates lack a receipt."""
        parts = self._parts
        parts.heartbeats.update(state="stopping", now=True)
        parts.publisher.close(DRAIN_S)
        if parts.learner is not None:
            parts.learner.close()
        parts.heartbeats.close()
        waiting = self.pending_count()
        parts.slot.release()
        return waiting

    def _report_idleness(self, idle: bool) -> None:
        """Report after a while without tasks why the coordinator issues none, if it says so."""
        self._idle_turns = self._idle_turns + 1 if idle else 0
        if self._idle_turns * TAKE_S < IDLE_S:
            return
        if reason := run_discovery.idle_reason(self._parts.store, self._parts.run):
            self._parts.events.record(WorkerEventKind.WAITING, reason[:500])

    def _is_resting(self) -> bool:
        """Return whether the site does not work now, and report a change."""
        until = self._parts.rest.until()
        if until != self._rests_until:
            self._rests_until = until
            state = "waiting" if until is None else "resting"
            self._parts.heartbeats.update(state=state, rests_until=until, now=True)
            text = "works again" if until is None else f"resting until {format_time(until)}"
            self._parts.events.record(WorkerEventKind.RESTING, text)
        return until is not None

    def _disk_refuses(self) -> bool:
        """Return whether the disk, which refused before, still does: then no task is taken."""
        if self._disk_refused:
            try:
                self._parts.slot.check_disk()
            except DiskError as error:
                self._report_disk(error)
                return True
            self._disk_refused = False
        return False

    def _report_disk(self, error: DiskError) -> None:
        self._disk_refused = True
        self._parts.events.record(WorkerEventKind.WAITING, str(error))

    def _process(self, task: SiteTask, abandon: Flag) -> None:
        """Run a task, and remove it from the disk unless it is to be tried again."""
        slot, heartbeats = self._parts.slot, self._parts.heartbeats
        if any(pending.task_id == task.task_id for pending in slot.pending_updates()):
            slot.drop_task()  # an earlier attempt has the answer
            return
        heartbeats.update(device=self._parts.device_share())
        heartbeats.start_task(task, self._max_staleness())
        try:
            result = self._execute(task, abandon)
        except (ConfigError, DataError, ModelError, WireError) as error:
            self._refuse(task, error)
            slot.drop_task()
            if isinstance(task, TrainTask) and self._is_broken():
                raise
            abandon.wait(RETRY_S)  # another worker, which may have what is missing, comes first
        else:
            if result.is_final:
                slot.drop_task()
                if isinstance(task, TrainTask):
                    self._refused.clear()
        finally:
            heartbeats.end_task(self._parts.rest.until())
            release_free_memory()

    def _is_broken(self) -> bool:
        """Return whether it is this worker that cannot train, rather than one of its clients.

        Then it has refused all of its clients in a row, or only such as it does not have.
        """
        served, refused = set(self.heartbeat().clients), set(self._refused)
        return len(self._refused) >= MAX_REFUSALS and (
            served <= refused or served.isdisjoint(refused)
        )

    def _execute(self, task: SiteTask, abandon: Flag) -> TaskResult:
        try:
            if isinstance(task, TrainTask):
                result = self._parts.runner.execute(task, abandon)
            else:
                result = self._parts.evaluations.execute(task, abandon)
        except (DiskError, StoreError) as error:
            if isinstance(error, DiskError):
                self._report_disk(error)
            else:
                self._parts.events.record(WorkerEventKind.WAITING, error.what)
            abandon.wait(RETRY_S)
            result = TaskResult.POSTPONED
        self._results[result] += 1
        if result in (TaskResult.TRAINED, TaskResult.EVALUATED):
            self._parts.publisher.wake()
        return result

    def _refuse(self, task: SiteTask, error: FcclError) -> None:
        if isinstance(task, TrainTask):  # a worker that cannot evaluate may still train
            self._refused.append(task.client_id)
        self._parts.metrics.on_task_end("refused")
        reason = str(error)[:500]
        text = f"{task.task_id} of {task.client_id}: {reason}"
        self._parts.events.record(WorkerEventKind.REFUSED, text)
        refusal = TaskRefusal(
            task_id=task.task_id,
            attempt=task.attempt,
            client_id=task.client_id,
            worker_id=self.worker_id,
            reason=reason,
            declines=True if isinstance(error, EvaluationDeclined) else None,
        )
        try:
            self._parts.publisher.refuse(refusal)
        except BrokerError as failed:
            self._parts.events.record(WorkerEventKind.WAITING, failed.what)

    def _max_staleness(self) -> int:
        try:
            info = run_discovery.read_info(self._parts.store, self._parts.run)
        except StoreError:
            info = None
        return UNLIMITED if info is None else info.max_staleness

"""Runner of tasks: fetch base model and adapter, train, encode, keep the update on the disk.

On an update's path after `worker/task_source.py`. `TaskRunner.execute` calls, in this order,
`worker/models/source.py`, `worker/trainer.py`, `worker/error_feedback.py` (which calls
`common/protocol/codec.py`) and `worker/spool.py`; next comes `worker/publisher.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from threading import Event as Flag

from filelock import Timeout

from broker.protocol import Site
from common.errors import FcclError, ModelError
from common.protocol import codec
from common.protocol.fields import MAX_LOSS
from common.protocol.tasks import TrainTask
from common.protocol.tensor_table import make_table
from common.protocol.tensors import Tensors
from common.protocol.updates import ContributionStats, Update
from common.store.store import Store
from learning.training.loop import StepReport
from learning.training.out_of_memory import REMEDY
from worker import error_feedback
from worker.data.references import References
from worker.events import EventCallback, WorkerEventKind
from worker.heartbeat import HeartbeatSender
from worker.incremental.learner import Learner
from worker.models.source import ModelSource
from worker.observer import Observer
from worker.settings.bandwidth import TransferStopped
from worker.settings.settings import SiteSettings
from worker.settings.suitability import check_task
from worker.spool import Slot, client_lock
from worker.task_clock import TaskClock, describe_seconds
from worker.task_failures import TaskFailures
from worker.trainer import MIN_LOSS, NO_START, TrainedTask, Trainer

MAX_CRASHES = 3  # of this process in one task, until the task is refused
LOCK_S = 1.0  # longest wait for a client that another process of this machine trains

StepCallback = Callable[[TrainTask, StepReport], None]


class TaskResult(Enum):
    """Outcome of one attempt to run a task."""

    TRAINED = auto()
    SETTLED = auto()  # it has its receipt already
    ABANDONED = auto()  # its update would not count any more
    INTERRUPTED = auto()  # the worker was stopped; the task stays for the next start
    POSTPONED = auto()  # something is missing; the task stays for another try

    @property
    def is_final(self) -> bool:
        """Whether the task has ended; otherwise it stays on the disk."""
        return self not in (TaskResult.INTERRUPTED, TaskResult.POSTPONED)


@dataclass(frozen=True)
class TaskRunner:
    """Runs one task after another on behalf of one worker."""

    run: str
    site: Site
    worker_id: str
    state: Path
    store: Store
    slot: Slot
    source: ModelSource
    trainer: Trainer
    learner: Learner | None  # None where clients do not learn from their users
    heartbeats: HeartbeatSender
    on_event: EventCallback
    on_step: StepCallback
    metrics: Observer
    settings: SiteSettings = SiteSettings()  # noqa: RUF009 - frozen
    failures: TaskFailures = field(default_factory=TaskFailures)

    def execute(self, task: TrainTask, abandon: Flag) -> TaskResult:
        """Run a task from its base model to an update on the disk.

        `abandon` stops it after the current step; the task stays on the disk.

        Raises:
            ConfigError: The settings of the site do not permit it.
            DataError: The client's rows are not here.
            ModelError: The base model is not accepted, not available or does not fit, training
                diverged, or a library failed.
            StoreError: The store is out of reach.
            WireError: The store's content is damaged.
        """
        try:
            return self._run(task, abandon)
        except FcclError:
            raise
        except Exception as error:  # torch and others raise any kind
            raise self.failures.refusal(task, error) from None

    def _run(self, task: TrainTask, abandon: Flag) -> TaskResult:
        if self.store.get_receipt(self.run, self.site.name, task.task_id) is not None:
            return TaskResult.SETTLED
        check_task(self.settings, task)
        try:
            return self._execute(task, abandon)
        except TransferStopped:
            return self._interrupt_or_abandon(task, abandon)

    def _execute(self, task: TrainTask, abandon: Flag) -> TaskResult:
        self.heartbeats.update(state="fetching")
        clock = TaskClock()
        with clock.part("fetch"):
            base = self.source.fetch_base(task.base, self._request_base, abandon)
            adapter = None if base is None else self.source.fetch_adapter(task, abandon)
        if base is None:
            return TaskResult.POSTPONED
        if adapter is None:
            return self._abandon(task, f"version {task.base_version} is gone")
        self.heartbeats.update(state="training", now=True)
        try:
            with (
                client_lock(self.state, self.run, task.client_id, LOCK_S),
                self.slot.training(task) as crashes,
            ):
                if crashes >= MAX_CRASHES:
                    raise _crashed(task, crashes)
                trained = self._train(task, base, adapter, abandon, clock, crashes)
                if trained is None:
                    return self._interrupt_or_abandon(task, abandon)
                stats = self._keep_update(task, trained, clock)
        except Timeout:
            text = f"another worker of this machine trains {task.client_id}"
            self.on_event(WorkerEventKind.WAITING, text)
            return TaskResult.POSTPONED
        self._report(task, stats)
        return TaskResult.TRAINED

    def _request_base(self, digest: str | None) -> None:
        """Ask the coordinator for a base model through the heartbeat; None ends the request."""
        self.heartbeats.update(wants=digest, now=True)

    def _train(
        self,
        task: TrainTask,
        base: Path,
        adapter: Tensors,
        abandon: Flag,
        clock: TaskClock,
        crashes: int,
    ) -> TrainedTask | None:
        """Train a task; return None if it was not finished. Needs the client's lock."""
        start = NO_START
        if self.learner is not None:
            self.learner.note_version(task, adapter)
            start = self.learner.prepare_task(task, base, adapter, abandon)
        references = References(
            self.slot.client_dir(task.client_id), lambda: self.source.fetch_reference(task, abandon)
        )
        trained = None
        try:
            on_step = self._step_callback(task, abandon)
            trained = self.trainer.train(
                task, base, adapter, references, on_step, start, clock, crashes
            )
        finally:
            if trained is None and self.learner is not None:
                self.learner.release_task(task)
        return trained

    def _step_callback(self, task: TrainTask, abandon: Flag) -> Callable[[StepReport], bool]:

        def on_step(report: StepReport) -> bool:
            self.heartbeats.update(
                progress=report.step / report.steps,
                tokens_per_s=report.tokens / max(report.seconds, 1e-9),
                last_loss=min(max(report.loss, MIN_LOSS), MAX_LOSS),
            )
            self.metrics.on_turn()
            self.on_step(task, report)
            if self.learner is not None:
                self.learner.between_steps(task, abandon)
            return not abandon.is_set() and not self.heartbeats.unwanted_reason()

        return on_step

    def _keep_update(
        self, task: TrainTask, trained: TrainedTask, clock: TaskClock
    ) -> ContributionStats:
        """Write the update to the disk, and return its statistics with the time of its parts."""
        try:
            with clock.part("encode"):
                layout, data = error_feedback.encode(
                    task.update_codec, trained.delta, self.slot.residual(task)
                )
                digest = codec.digest(data)
        except ValueError as error:
            raise ModelError(f"the delta of {task.task_id}: {error}", "lower phase.lr") from None
        stats = trained.stats.model_copy(update={"seconds": clock.seconds()})
        schema1 = task.layout is None  # a task of schema 1 has an answer of schema 1
        update = Update(
            task_id=task.task_id,
            attempt=task.attempt,
            client_id=task.client_id,
            worker_id=self.worker_id,
            phase=task.phase,
            base_version=task.base_version,
            stats=trained.stats if schema1 else stats,
            codec=task.update_codec,
            layout=None if schema1 else layout.digest,
            tensors=make_table(task.update_codec, layout) if schema1 else None,
            sha256=digest,
        )
        self.slot.put_update(update, data)
        return stats

    def _report(self, task: TrainTask, stats: ContributionStats) -> None:
        self.metrics.on_task_end("trained", stats)
        text = (
            f"{task.task_id} of {task.client_id} from version {task.base_version}:"
            f" loss {stats.avg_loss:.3f}, {describe_seconds(stats)}"
        )
        self.on_event(WorkerEventKind.TRAINED, text)

    def _interrupt_or_abandon(self, task: TrainTask, abandon: Flag) -> TaskResult:
        if not abandon.is_set():
            return self._abandon(task, self.heartbeats.unwanted_reason())
        self.metrics.on_task_end("abandoned")
        text = f"{task.task_id} is left for the next start"
        self.on_event(WorkerEventKind.ABANDONED, text)
        return TaskResult.INTERRUPTED

    def _abandon(self, task: TrainTask, reason: str) -> TaskResult:
        self.metrics.on_task_end("abandoned")
        self.on_event(WorkerEventKind.ABANDONED, f"{task.task_id}: {reason}")
        return TaskResult.ABANDONED


def _crashed(task: TrainTask, crashes: int) -> ModelError:
    return ModelError(
        f"this worker ended {crashes} times while it trained {task.task_id}: it was probably"
        " killed for lack of memory",
        REMEDY,
    )

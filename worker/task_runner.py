"""Runner of tasks: fetch base model and adapter, train, encode, keep the update on the disk.

On an update's path after `worker/task_source.py`. `TaskRunner.execute` calls, in this order,
`worker/models/source.py`, `worker/trainer.py`, `worker/error_feedback.py` (which calls
`common/protocol/codec.py`) and `worker/spool.py`; next comes `worker/publisher.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag

from filelock import Timeout

from common.errors import ModelError
from common.protocol import codec
from common.protocol.fields import MAX_LOSS
from common.protocol.tasks import TrainTask
from common.protocol.tensor_table import make_table
from common.protocol.tensors import Tensors
from common.protocol.updates import ContributionStats, Update
from learning.training.loop import StepReport
from worker import error_feedback
from worker.data.references import References
from worker.events import WorkerEventKind
from worker.incremental.learner import Learner
from worker.settings.suitability import check_task
from worker.spool import client_lock
from worker.task_clock import TaskClock, describe_seconds
from worker.task_support import TaskResult, TaskSupport
from worker.trainer import MIN_LOSS, NO_START, TrainedTask, Trainer, l2_norm

LOCK_S = 1.0  # longest wait for a client that another process of this machine trains

StepCallback = Callable[[TrainTask, StepReport], None]


@dataclass(frozen=True)
class TaskRunner:
    """Runs one task after another on behalf of one worker."""

    support: TaskSupport
    state: Path
    trainer: Trainer
    learner: Learner | None  # None where clients do not learn from their users
    on_step: StepCallback

    def execute(self, task: TrainTask, abandon: Flag) -> TaskResult:
        """Run a task from its base model to an update on the disk.

        `abandon` stops it after the current step; the task stays on the disk.

        Raises:
            ConfigError: The settings of the site do not permit it.
            DataError: The client's rows are not here.
            ModelError: The base model is not accepted, not available or does not fit, training
                diverged, or a library failed.
            StoreError: The store is out of reach.
            DiskError: The disk refuses.
            WireError: The store's content is damaged.
        """
        return self.support.attempt(task, abandon, lambda: self._execute(task, abandon))

    def _execute(self, task: TrainTask, abandon: Flag) -> TaskResult:
        support = self.support
        check_task(support.settings, task)
        support.heartbeats.update(state="fetching")
        clock = TaskClock()
        with clock.part("fetch"):
            base = support.fetch_base(task.base, abandon)
            adapter = None if base is None else support.source.fetch_adapter(task, abandon)
        if base is None:
            return TaskResult.POSTPONED
        if adapter is None:
            return support.abandon(task, f"version {task.base_version} is gone")
        support.heartbeats.update(state="training", now=True)
        try:
            with (
                client_lock(self.state, support.run, task.client_id, LOCK_S),
                support.running(task) as crashes,
            ):
                trained = self._train(task, base, adapter, abandon, clock, crashes)
                if trained is None:
                    return support.end_early(task, abandon)
                stats = support.persist(lambda: self._keep_update(task, trained, clock), abandon)
        except Timeout:
            text = f"another worker of this machine trains {task.client_id}"
            support.on_event(WorkerEventKind.WAITING, text)
            return TaskResult.POSTPONED
        self._report(task, stats)
        return TaskResult.TRAINED

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
        support = self.support
        references = References(
            support.slot.client_dir(task.client_id),
            lambda: support.source.fetch_reference(task, abandon),
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

        support = self.support

        def on_step(report: StepReport) -> bool:
            support.heartbeats.update(
                progress=report.step / report.steps,
                tokens_per_s=report.tokens / max(report.seconds, 1e-9),
                last_loss=min(max(report.loss, MIN_LOSS), MAX_LOSS),
            )
            support.metrics.on_turn()
            self.on_step(task, report)
            if self.learner is not None:
                self.learner.between_steps(task, abandon)
            return not support.should_stop(abandon)

        return on_step

    def _keep_update(
        self, task: TrainTask, trained: TrainedTask, clock: TaskClock
    ) -> ContributionStats:
        """Write the update to the disk, and return its statistics with the time of its parts."""
        try:
            with clock.part("encode"):
                layout, data = error_feedback.encode(
                    task.update_codec, trained.delta, self.support.slot.residual(task)
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
            worker_id=self.support.worker_id,
            phase=task.phase,
            base_version=task.base_version,
            stats=trained.stats if schema1 else stats,
            codec=task.update_codec,
            layout=None if schema1 else layout.digest,
            tensors=make_table(task.update_codec, layout) if schema1 else None,
            sha256=digest,
        )
        if (log := self.support.sent_log) is not None:
            sent = codec.decode(task.update_codec, layout, data)
            log.note_norm(f"{task.task_id}.{task.attempt}", l2_norm(sent))
        self.support.slot.put_update(update, data)
        return stats

    def _report(self, task: TrainTask, stats: ContributionStats) -> None:
        self.support.metrics.on_task_end("trained", stats)
        text = (
            f"{task.task_id} of {task.client_id} from version {task.base_version}:"
            f" loss {stats.avg_loss:.3f}, {describe_seconds(stats)}"
        )
        self.support.on_event(WorkerEventKind.TRAINED, text)

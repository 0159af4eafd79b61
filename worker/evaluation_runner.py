"""Runner of evaluations: fetch base model and adapters, score validation rows, keep the result.

On the path of an evaluation after `worker/task_source.py`. `EvaluationRunner.execute` calls
`worker/models/source.py`, `worker/version_evaluator.py` and `worker/spool.py`; next comes
`worker/publisher.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Event as Flag

from broker.protocol import LOCAL
from common.errors import DataError
from common.evaluation.metric_info import MAIN_METRIC
from common.evaluation.sums import metric_values
from common.protocol.evaluations import EvalResult, EvalTask
from common.protocol.fields import ROW_KINDS
from common.protocol.tasks import BlobRef
from common.protocol.tensors import Tensors
from worker.events import WorkerEventKind
from worker.settings.suitability import check_evaluation
from worker.task_clock import TaskClock
from worker.task_support import TaskResult, TaskSupport
from worker.version_evaluator import VersionEvaluator


class _Stopped(Exception):
    """The worker is to stop, or the result is not wanted any more."""


@dataclass(frozen=True)
class EvaluationRunner:
    """Runs one evaluation after another on behalf of one worker."""

    support: TaskSupport
    evaluator: VersionEvaluator

    def execute(self, task: EvalTask, abandon: Flag) -> TaskResult:
        """Run an evaluation, from its base model to a result on the disk.

        `abandon` stops it after the current batch; the task stays on the disk.

        Raises:
            ConfigError: The settings of the site do not permit it.
            DataError: The client has no rows for it here, or the version is gone.
            ModelError: The base model is not accepted, not available or does not fit, a figure is
                not finite, or a library failed.
            StoreError: The store is out of reach.
            DiskError: The disk refuses.
            WireError: The store's content is damaged.
        """
        return self.support.attempt(task, abandon, lambda: self._execute(task, abandon))

    def _execute(self, task: EvalTask, abandon: Flag) -> TaskResult:
        support = self.support
        check_evaluation(support.settings, task, shares=support.site == LOCAL)
        support.heartbeats.update(state="fetching")
        clock, fetched = TaskClock(), _Adapters(support, task, abandon)
        with clock.part("fetch"):
            base = support.fetch_base(task.base, abandon)
        if base is None:
            return TaskResult.POSTPONED
        support.heartbeats.update(state="evaluating", now=True)

        def on_progress(share: float) -> None:
            support.heartbeats.update(progress=share)
            support.metrics.on_turn()
            if support.should_stop(abandon):
                raise _Stopped

        try:
            with support.running(task):
                found = self.evaluator.evaluate(task, base, fetched.fetch, on_progress, clock)
        except _Stopped:
            return support.end_early(task, abandon)
        result = EvalResult(
            task_id=task.task_id,
            attempt=task.attempt,
            client_id=task.client_id,
            worker_id=support.worker_id,
            version=task.version,
            sums=found.version,
            candidate_sums=found.candidate,
            seconds=clock.seconds().measure,
            nbytes=fetched.nbytes,
        )
        support.persist(lambda: support.slot.put_result(result), abandon)
        support.metrics.on_evaluation(result.seconds)
        support.on_event(WorkerEventKind.EVALUATED, _describe(task, result))
        return TaskResult.EVALUATED


class _Adapters:
    """Adapters of a task, and how many bytes of them were fetched."""

    def __init__(self, support: TaskSupport, task: EvalTask, stop: Flag) -> None:
        self._support, self._task, self._stop = support, task, stop
        self.nbytes = 0

    def fetch(self, blob: BlobRef) -> Tensors:
        """Return θ of one of the task's adapters.

        Raises:
            DataError: The coordinator has dropped it from the store.
        """
        task = self._task
        tensors = self._support.source.fetch_evaluated(task, blob, self._stop)
        if tensors is None:
            name = f"version {task.version}" if blob == task.adapter else "the candidate"
            raise DataError(f"{name} of {task.task_id} is gone from the store", "nothing is to do")
        self.nbytes += blob.nbytes
        return tensors


def _describe(task: EvalTask, result: EvalResult) -> str:
    """Return an evaluation in one line: version, client, main metric, rows and time."""
    kind = ROW_KINDS[task.objective]
    metric = MAIN_METRIC[kind]
    values = [
        f"{metric_values(kind, sums)[metric.key]:.{metric.decimals}f}"
        for sums in (result.sums, result.candidate_sums)
        if sums is not None
    ]
    what = f"version {task.version}" + (" and an update to it" if task.candidate else "")
    return (
        f"{what} for {task.client_id}: {' and '.join(values)} {metric.title} on"
        f" {result.sums.rows} rows, {result.seconds:.1f} s"
    )

"""Answers of virtual clients, in the form in which the coordinator's core receives them.

A task is computed only when its answer arrives, so that nothing is computed for tasks that were
closed meanwhile. An update is encoded and decoded as on a real network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.errors import DataError, ModelError
from common.files import make_private
from common.protocol import codec
from common.protocol.evaluations import EvalResult, EvalTask
from common.protocol.fields import FEEDBACK_CODECS
from common.protocol.layout import TensorLayout
from common.protocol.tasks import TrainTask
from common.protocol.updates import TaskSeconds, Update
from common.protocol.wire import pack
from coordinator.aggregation.rules.rule import Rule
from coordinator.core import admission
from coordinator.core.events import EvaluationArrived, TaskRefused, UpdateArrived
from coordinator.storage.spool import decode_delta, upload_name
from coordinator.storage.versions import Versions
from simulation.driver.memory_spool import MemorySpool
from simulation.population.client import VirtualClient
from simulation.work.work import FetchAdapter, Trained, Work
from worker import error_feedback
from worker.error_feedback import Residual

MAX_REASON = 300
"""Characters of the reason of a refusal."""
HEADER_BYTES = 1024
"""About the size of an update without its tensors, of a task, and of an evaluation's result."""


@dataclass(frozen=True)
class VirtualTimes:
    """Time that a task took, in virtual seconds."""

    training: float
    fetch: float


class Answers:
    """Computes the answers of all clients of one run."""

    def __init__(
        self,
        work: Work,
        versions: Versions,
        spool: MemorySpool,
        private: Path,
        fetch: FetchAdapter,
        spoil: Callable[[VirtualClient, int, Trained], Trained],
        rule: Rule,
    ) -> None:
        """Create it.

        Args:
            work: Computes tasks.
            versions: Versions of the run.
            spool: Receives updates.
            private: Directory for the remainders of lossy codecs.
            fetch: Returns an adapter that a task names.
            spoil: Returns what a faulty client sends for its n-th task.
            rule: Aggregation rule of the run.
        """
        self._work, self._spool, self._rule = work, spool, rule
        self._private, self._fetch, self._spoil = private, fetch, spoil
        self._layout = TensorLayout.of(versions.read(0))

    def train(
        self, client: VirtualClient, task: TrainTask, number: int, times: VirtualTimes
    ) -> UpdateArrived | TaskRefused:
        """Train a task and put its update into the spool."""
        try:
            adapter = self._fetch(task.adapter)
            trained = self._work.train(task, adapter, self._fetch)
            if client.faulty:
                trained = self._spoil(client, number, trained)
            return self._arrived(client, task, trained, times)
        except (ModelError, DataError, ValueError) as error:
            what = error.what if isinstance(error, ModelError | DataError) else str(error)
            return _refusal(client, task, what)

    def _arrived(
        self, client: VirtualClient, task: TrainTask, trained: Trained, times: VirtualTimes
    ) -> UpdateArrived:
        residual = self._residual(task)
        layout, data = error_feedback.encode(task.update_codec, trained.delta, residual)
        if task.update_codec in FEEDBACK_CODECS:
            residual.waiting.replace(residual.current)
        update = Update(
            task_id=task.task_id,
            attempt=task.attempt,
            client_id=task.client_id,
            worker_id=client.name,
            phase=task.phase,
            base_version=task.base_version,
            stats=trained.stats.model_copy(
                update={
                    "train_seconds": times.training,
                    "seconds": TaskSeconds(fetch=times.fetch),
                }
            ),
            codec=task.update_codec,
            layout=layout.digest,
            sha256=codec.digest(data),
        )
        expected = self._rule.update_layout(self._layout, task.client_id)
        frame = pack(update, data)
        upload = upload_name(client.name, codec.digest(frame))
        self._spool.put(upload, frame)
        decoded = decode_delta(update, memoryview(data), expected)
        norm, problem = admission.check_tensors(decoded)
        return UpdateArrived(
            task_id=update.task_id,
            attempt=update.attempt,
            client_id=update.client_id,
            worker_id=update.worker_id,
            site=client.name,
            phase=update.phase,
            base_version=update.base_version,
            stats=update.stats,
            norm=norm,
            problem=problem,
            nbytes=len(frame),
            upload=upload,
        )

    def _residual(self, task: TrainTask) -> Residual:
        folder = self._private / task.client_id
        if task.update_codec in FEEDBACK_CODECS:
            make_private(folder)
        return Residual(folder / "residual", folder / "waiting", task.phase)

    def evaluate(
        self, client: VirtualClient, task: EvalTask, seconds: float
    ) -> EvaluationArrived | TaskRefused:
        """Evaluate a version, and a candidate if the task names one."""
        try:
            version, candidate = self._work.evaluate(task, self._fetch)
        except (ModelError, DataError) as error:
            return _refusal(client, task, error.what)
        result = EvalResult(
            task_id=task.task_id,
            attempt=task.attempt,
            client_id=task.client_id,
            worker_id=client.name,
            version=task.version,
            sums=version,
            candidate_sums=candidate,
            seconds=seconds,
            nbytes=task.adapter.nbytes + (task.candidate.nbytes if task.candidate else 0),
        )
        return EvaluationArrived(result, client.name)


def _refusal(client: VirtualClient, task: TrainTask | EvalTask, reason: str) -> TaskRefused:
    return TaskRefused(task.task_id, task.attempt, task.client_id, client.name, reason[:MAX_REASON])

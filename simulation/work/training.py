"""Real training of virtual clients, one after another, by the worker's own trainer."""

from __future__ import annotations

from pathlib import Path

import torch

from common.evaluation.sums import EvaluationSums
from common.protocol.evaluations import EvalTask
from common.protocol.fields import ROW_KINDS
from common.protocol.tasks import TrainTask
from common.protocol.tensors import Tensors
from coordinator.core.state import Plan
from learning.training.device import Compute
from learning.training.loop import total_steps
from simulation.work.work import FetchAdapter, Trained
from worker.data.references import References
from worker.data.shards import ClientData
from worker.models.loaded import ModelCache
from worker.task_clock import TaskClock
from worker.trainer import Trainer
from worker.version_evaluator import VersionEvaluator


def simulation_compute(*, autocast: bool) -> Compute:
    """Return one thread of the CPU: the same run then has the same bits on every start."""
    torch.set_num_threads(1)
    return Compute(torch.device("cpu"), 1, autocast)


class TrainingWork:
    """Work that trains the run's model on the clients' rows."""

    def __init__(
        self, plan: Plan, clients: Path, base: Path, private: Path, compute: Compute
    ) -> None:
        """Create the work.

        Args:
            plan: Plan of the run.
            clients: Directory of the clients' rows.
            base: Directory of the base model.
            private: Directory for what clients keep between tasks.
            compute: Device and precision.
        """
        self._plan, self._base, self._private = plan, base, private
        data, models = ClientData(clients), ModelCache(compute)
        self._trainer = Trainer(data, models)
        self._evaluator = VersionEvaluator(data, models)

    def steps(self, task: TrainTask) -> int:
        return total_steps(task.training, self._rows(task))

    def _rows(self, task: TrainTask) -> int:
        return self._plan.clients[task.client_id].rows[ROW_KINDS[task.objective]]

    def train(self, task: TrainTask, adapter: Tensors, fetch: FetchAdapter) -> Trained:
        reference = task.reference
        assert reference is not None or task.objective not in ("dpo", "kto")
        references = References(
            self._private / task.client_id,
            lambda: fetch(reference) if reference is not None else {},
        )
        trained = self._trainer.train(task, self._base, adapter, references, lambda _: True)
        assert trained is not None  # no step abandons it
        return Trained(trained.delta, trained.stats)

    def evaluate(
        self, task: EvalTask, fetch: FetchAdapter
    ) -> tuple[EvaluationSums, EvaluationSums | None]:
        found = self._evaluator.evaluate(task, self._base, fetch, lambda _: None, TaskClock())
        return found.version, found.candidate

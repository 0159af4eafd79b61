"""Interface of what a virtual client computes; the driver charges it with virtual time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from common.evaluation.sums import EvaluationSums
from common.protocol.evaluations import EvalTask
from common.protocol.tasks import BlobRef, TrainTask
from common.protocol.tensors import Tensors
from common.protocol.updates import ContributionStats

FetchAdapter = Callable[[BlobRef], Tensors]
"""Returns the tensors of a version, or of a candidate."""


@dataclass(frozen=True)
class Trained:
    """Result of a training task: Δ = θ_local − θ_base, and what the client claims about it."""

    delta: Tensors
    stats: ContributionStats


class Work(Protocol):
    """Computation of tasks. The result depends on the task and the adapters alone."""

    def steps(self, task: TrainTask) -> int:
        """Return the number of local steps of a task, before it is trained."""

    def train(self, task: TrainTask, adapter: Tensors, fetch: FetchAdapter) -> Trained:
        """Train a task from the adapter of its base version.

        Raises:
            ModelError: Training diverged.
        """

    def evaluate(
        self, task: EvalTask, fetch: FetchAdapter
    ) -> tuple[EvaluationSums, EvaluationSums | None]:
        """Return the sums of a version on a client's validation rows, and of the candidate."""

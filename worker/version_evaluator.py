"""Evaluator of versions: turns a task and adapters into sums over a client's validation rows.

The base model stays loaded between tasks. Scores of rows are kept, so that an adapter which is
asked for again, as the version that several updates are compared with or the reference of rewards,
is neither fetched nor computed again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import ModelError, WireError
from common.evaluation.metric_info import REWARD_KINDS
from common.evaluation.sums import EvaluationSums
from common.protocol.evaluations import EvalTask
from common.protocol.fields import ROW_KINDS
from common.protocol.tasks import BlobRef
from common.protocol.tensors import Tensors
from learning.evaluation import row_scores
from learning.evaluation.row_scores import RowScorer, Scores
from learning.models import lora
from worker.data.shards import ClientData
from worker.data.validation_rows import ValidationRows, rows_key
from worker.models.loaded import ModelCache
from worker.task_clock import TaskClock

FetchAdapter = Callable[[BlobRef], Tensors]
_KEPT = 32  # scores of a client's rows: a number or two for each row

RowsCallback = Callable[[float], None]
"""Called with the share of the work that is done; what it raises ends the evaluation."""


@dataclass(frozen=True)
class VersionSums:
    """Sums with the version of a task and, on the same rows, with its candidate."""

    version: EvaluationSums
    candidate: EvaluationSums | None


class VersionEvaluator:
    """Evaluates tasks one after another on one device."""

    def __init__(self, data: ClientData, models: ModelCache) -> None:
        self._rows, self._models = ValidationRows(data), models
        self._scores: OrderedDict[tuple[object, ...], Scores] = OrderedDict()

    def evaluate(
        self,
        task: EvalTask,
        base: Path,
        fetch: FetchAdapter,
        on_progress: RowsCallback,
        clock: TaskClock,
    ) -> VersionSums:
        """Evaluate the version of a task, and its candidate if it names one.

        Args:
            task: The task.
            base: Directory of the base model.
            fetch: Called for the adapters whose scores are not known.
            on_progress: Called between batches.
            clock: Measures the parts of the task.

        Raises:
            DataError: The client has no validation rows that can be used.
            ModelError: The model does not fit, or a figure is not finite.
            WireError: The task names no reference, but needs one.
        """
        with clock.part("load"):
            loaded = self._models.load(
                task.objective, base, task.base.digest, task.lora, task.labels, task.precision
            )
            scorer = row_scores.make_scorer(
                ROW_KINDS[task.objective], task.dpo or task.kto, task.labels, task.prompt
            )
            examples = self._rows.load(task, scorer.objective, loaded.tokenizer)
        blobs = [task.adapter, *([task.candidate] if task.candidate else [])]
        if scorer.kind in REWARD_KINDS:
            if task.reference is None:
                raise WireError(f"task {task.task_id} names no reference")
            blobs.append(task.reference)
        total, done = len(examples) * len(blobs), 0

        def on_rows(count: int) -> None:
            nonlocal done
            done += count
            on_progress(done / total)

        def compute(blob: BlobRef) -> Scores:
            with clock.part("fetch"):
                tensors = fetch(blob)
            with clock.part("measure"):
                lora.write_adapter(loaded.model, tensors)
                autocast = self._models.compute.autocast
                return row_scores.score_in_parts(
                    scorer, loaded.model, examples, autocast=autocast, on_rows=on_rows
                )

        scores = [self._known_or(compute, task, blob) for blob in blobs]
        reference = scores.pop() if scorer.kind in REWARD_KINDS else scores[0]
        sums = [
            _sums(scorer, examples, own, reference, name)
            for name, own in zip((f"version {task.version}", "the candidate"), scores, strict=False)
        ]
        return VersionSums(sums[0], sums[1] if task.candidate else None)

    def _known_or(
        self, compute: Callable[[BlobRef], Scores], task: EvalTask, blob: BlobRef
    ) -> Scores:
        """Return the scores of a task's rows with an adapter, computed if they are not kept."""
        key = (rows_key(task), task.max_rows, task.lora, task.precision, blob.sha256)
        if key not in self._scores:
            self._scores[key] = compute(blob)
        self._scores.move_to_end(key)
        while len(self._scores) > _KEPT:
            self._scores.popitem(last=False)
        return self._scores[key]


def _sums(
    scorer: RowScorer, examples: Sequence[Any], scores: Scores, reference: Scores, name: str
) -> EvaluationSums:
    try:
        return scorer.sums(examples, scores, reference).to_send()
    except ModelError as error:
        raise ModelError(f"{name}: {error.what}", error.remedy) from None

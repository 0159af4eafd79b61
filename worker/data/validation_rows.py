"""Validation rows of the clients that a worker serves, which no task trains or measures on.

They are in the order of a hash, so that the first ones are a fair sample, and the same in every
evaluation. `worker/version_evaluator.py` scores them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from common.errors import DataError
from common.protocol.evaluations import EvalTask
from common.protocol.fields import ROW_KINDS
from learning.data import rows, splits
from learning.objectives.registry import Objective
from worker.data.shards import ClientData, ShardRequest


def rows_key(task: EvalTask) -> tuple[ShardRequest, str]:
    """Return what fixes the tokenised rows of a task: the rows, and the tokenizer."""
    kind = ROW_KINDS[task.objective]
    request = ShardRequest(task.client_id, kind, task.labels, task.max_length, task.prompt)
    return request, task.base.digest


class ValidationRows:
    """Validation rows of a data directory, tokenised once and kept in memory."""

    def __init__(self, data: ClientData) -> None:
        self._data = data
        self._examples: dict[tuple[ShardRequest, str], Sequence[Any]] = {}

    def load(
        self, task: EvalTask, objective: Objective, tokenizer: PreTrainedTokenizerBase
    ) -> Sequence[Any]:
        """Return the rows on which a task evaluates: at most its `max_rows`.

        Raises:
            DataError: The client has no such rows, or none can be used. The message contains no
                path, since it travels to the coordinator.
        """
        key = rows_key(task)
        if key not in self._examples:
            self._examples[key] = self._read(task, objective, tokenizer)
        return self._examples[key][: task.max_rows]

    def _read(
        self, task: EvalTask, objective: Objective, tokenizer: PreTrainedTokenizerBase
    ) -> Sequence[Any]:
        kind = ROW_KINDS[task.objective]
        path = self._data.files(kind).get(task.client_id)
        if path is None:
            raise DataError(
                f"{task.client_id} has no rows for {task.objective} here", "check --data"
            )
        found = splits.split_rows(rows.read(kind, path).rows).validation
        if not found:
            raise DataError(
                f"{task.client_id} has too few {kind} rows for a validation set",
                f"three different ones are enough, of {splits.SIDES} sides",
            )
        ordered = sorted(found, key=lambda row: splits.row_rank(row, "evaluated"))
        encoded = objective.encode(tokenizer, ordered, task.max_length)
        if not encoded.examples:
            raise DataError(
                f"no validation row of {task.client_id} can be used at {task.max_length} tokens"
                f" ({', '.join(encoded.skipped)})",
                "raise model.max_length, or correct the rows",
            )
        return encoded.examples

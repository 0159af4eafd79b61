"""Rows of the clients that a worker serves, tokenised once and kept in memory.

The client id of a task is compared with the names of the existing files; no path is ever built from
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from transformers import PreTrainedTokenizerBase

from common.errors import DataError
from common.protocol.fields import ROW_KINDS, RowKind
from common.protocol.tasks import PromptSpec, TrainTask
from learning.data import rows, splits
from learning.objectives.registry import Objective
from worker.data.import_rows import HELDOUT


@dataclass(frozen=True)
class TokenisedShard:
    """Tokenised rows of one client: examples of a task's objective."""

    train: Sequence[Any]
    holdout: Sequence[Any]  # in the order of a hash, so that the first ones are a fair sample


_OBJECTIVES = {kind: objective for objective, kind in ROW_KINDS.items()}


@dataclass(frozen=True)
class ShardRequest:
    """Rows of a client to load, and what decides how they are tokenised."""

    client_id: str
    kind: RowKind
    labels: tuple[str, ...]  # empty unless texts are classified
    max_length: int  # in tokens
    prompt: PromptSpec | None = None  # form of rows that are not classified
    plugin: str = ""  # of the objective, with its options


class ClientData:
    """Data directory of a worker.

    The clients of an invited `site` are called SITE and SITE.NAME. Without one, for the local site,
    they have the names of their files.
    """

    def __init__(self, directory: Path, site: str | None = None) -> None:
        self._directory, self._site = directory, site
        self._shards: dict[tuple[ShardRequest, int], TokenisedShard] = {}

    def clients(self) -> tuple[str, ...]:
        """Return the clients that have rows of any kind."""
        return tuple(sorted({client for kind in get_args(RowKind) for client in self.files(kind)}))

    def row_counts(self) -> dict[str, dict[RowKind, int]]:
        """Return the number of training rows of each client, by kind."""
        counts: dict[str, dict[RowKind, int]] = {client: {} for client in self.clients()}
        for kind in get_args(RowKind):
            for client, path in self.files(kind).items():
                counts[client][kind] = len(splits.split_rows(rows.read(kind, path).rows).train)
        return counts

    def load_for_task(
        self, task: TrainTask, objective: Objective, tokenizer: PreTrainedTokenizerBase
    ) -> TokenisedShard:
        """Return the rows that a task may use.

        Raises `DataError` as `load` does.
        """
        request = ShardRequest(
            task.client_id,
            ROW_KINDS[task.objective],
            task.labels,
            task.training.max_length,
            task.prompt,
            str(task.plugin or ""),
        )
        return self.load(request, objective, tokenizer)

    def load(
        self, request: ShardRequest, objective: Objective, tokenizer: PreTrainedTokenizerBase
    ) -> TokenisedShard:
        """Return the rows of a client, ready to train on.

        Raises:
            DataError: This worker has no such rows of that client, or none can be used.
        """
        key = (request, id(tokenizer))
        if key not in self._shards:
            self._shards[key] = self._read(request, objective, tokenizer)
        return self._shards[key]

    def _read(
        self, request: ShardRequest, objective: Objective, tokenizer: PreTrainedTokenizerBase
    ) -> TokenisedShard:
        client, kind, length = request.client_id, request.kind, request.max_length
        path = self.files(kind).get(client)
        if path is None:
            raise DataError(
                f"{self._directory} has no rows of {client} for {_OBJECTIVES[kind]}",
                f"check --data: there must be a file {client}_{kind}.jsonl",
            )
        split = splits.split_rows(rows.read(kind, path).rows)
        learned = objective.encode(tokenizer, split.train, length)
        holdout = sorted(split.holdout, key=lambda row: splits.row_rank(row, "measured"))
        measured = objective.encode(tokenizer, holdout, length)
        if not learned.examples or not measured.examples:
            skipped = {**learned.skipped, **measured.skipped}
            why = ", ".join(skipped) or "there are too few"
            raise DataError(
                f"no row of {path} can be used at {length} tokens ({why})",
                "raise model.max_length, or correct the rows",
            )
        if len(learned.examples) < objective.least_examples:
            raise DataError(
                f"{_OBJECTIVES[kind]} needs {objective.least_examples} rows to learn from, and"
                f" {client} has {len(learned.examples)}",
                f"add rows to {path.name}",
            )
        return TokenisedShard(learned.examples, measured.examples)

    def files(self, kind: RowKind) -> dict[str, Path]:
        suffix = f"_{kind}.jsonl"
        files = {
            path.name.removesuffix(suffix): path for path in self._directory.glob(f"*{suffix}")
        }
        files.pop(HELDOUT, None)
        if self._site is None:
            return files
        return {
            name if name == self._site else f"{self._site}.{name}": path
            for name, path in files.items()
        }

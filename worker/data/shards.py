"""The rows of the clients that this worker serves, tokenised once and kept.

A client is named by a label in a task; the label picks a file among those that are there, and is
never made into a path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from transformers import PreTrainedTokenizerBase

from common.errors import DataError
from common.protocol.fields import ROW_KINDS, RowKind
from common.protocol.tasks import TrainTask
from learning.data import rows, splits
from learning.objectives.registry import Objective

HELDOUT = "heldout"
HOLDOUT_EXAMPLES = 48  # measured before and after every task: enough to compare, quick to do


@dataclass(frozen=True)
class TokenisedShard:
    """One client's tokenised rows: examples of the task's objective."""

    train: Sequence[Any]
    holdout: Sequence[Any]


_LEARNED = {kind: objective for objective, kind in ROW_KINDS.items()}


@dataclass(frozen=True)
class ShardRequest:
    """Which rows, and what makes examples of them; `labels` only where texts are classified."""

    client_id: str
    kind: RowKind
    labels: tuple[str, ...]
    max_length: int


class ClientData:
    """The data directory of a worker."""

    def __init__(self, directory: Path, site: str | None = None) -> None:
        """Nothing is read yet.

        Args:
            directory: Of the client files.
            site: Whose clients they are, where it was invited: it may speak for SITE and SITE.NAME.
        """
        self._directory, self._site = directory, site
        self._shards: dict[tuple[ShardRequest, int], TokenisedShard] = {}

    def clients(self) -> tuple[str, ...]:
        """The clients of whom there are rows of any kind."""
        return tuple(sorted({client for kind in get_args(RowKind) for client in self.files(kind)}))

    def counts(self) -> dict[str, dict[RowKind, int]]:
        """Training rows of each client, by kind.

        Raises:
            DataError: A file cannot be read.
        """
        found: dict[str, dict[RowKind, int]] = {client: {} for client in self.clients()}
        for kind in get_args(RowKind):
            for client, path in self.files(kind).items():
                found[client][kind] = len(splits.split_rows(rows.read(kind, path).rows).train)
        return found

    def shard(
        self, task: TrainTask, objective: Objective, tokenizer: PreTrainedTokenizerBase
    ) -> TokenisedShard:
        """The rows that a task is to learn from, ready to train on; of the holdout a part.

        Raises:
            DataError: This worker has no such rows of that client, or none can be used.
        """
        wanted = ShardRequest(
            task.client_id, ROW_KINDS[task.objective], task.labels, task.training.max_length
        )
        whole = self.load(wanted, objective, tokenizer)
        return TokenisedShard(whole.train, whole.holdout[:HOLDOUT_EXAMPLES])

    def load(
        self, wanted: ShardRequest, objective: Objective, tokenizer: PreTrainedTokenizerBase
    ) -> TokenisedShard:
        """The rows of a client, ready to train on, with all of its holdout.

        Raises:
            DataError: This worker has no such rows of that client, or none can be used.
        """
        key = (wanted, id(tokenizer))
        if key not in self._shards:
            self._shards[key] = self._read(wanted, objective, tokenizer)
        return self._shards[key]

    def _read(
        self, wanted: ShardRequest, objective: Objective, tokenizer: PreTrainedTokenizerBase
    ) -> TokenisedShard:
        client, kind, length = wanted.client_id, wanted.kind, wanted.max_length
        path = self.files(kind).get(client)
        if path is None:
            raise DataError(
                f"{self._directory} has no rows of {client} for {_LEARNED[kind]}",
                f"check --data: there must be a file {client}_{kind}.jsonl",
            )
        own = splits.split_rows(rows.read(kind, path).rows)
        learned = objective.encode(tokenizer, own.train, length)
        measured = objective.encode(tokenizer, own.holdout, length)
        if not learned.examples or not measured.examples:
            lost = {**learned.skipped, **measured.skipped}
            why = ", ".join(lost) or "there are too few"
            raise DataError(
                f"no row of {path} can be used at {length} tokens ({why})",
                "raise model.max_length, or mend the rows",
            )
        return TokenisedShard(learned.examples, measured.examples)

    def files(self, kind: RowKind) -> dict[str, Path]:
        """The files of rows of a kind, by client."""
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

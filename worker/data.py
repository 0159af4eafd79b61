"""The rows of the clients that this worker serves, tokenised once and kept.

A client is named by a label in a task; the label picks a file among those that are there, and is
never made into a path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from common.errors import DataError
from learning import instructions, shards, tokens
from learning.tokens import Example

SUFFIX = "_sft.jsonl"
HELDOUT = "heldout"
HOLDOUT_EXAMPLES = 48  # measured before and after every task: enough to compare, quick to do


@dataclass(frozen=True)
class Shard:
    """One client's tokenised rows."""

    train: Sequence[Example]
    holdout: Sequence[Example]


class Data:
    """The data directory of a worker."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._shards: dict[tuple[str, int, int], Shard] = {}

    def clients(self) -> tuple[str, ...]:
        """The clients whose rows are here."""
        return tuple(sorted(self._files()))

    def shard(self, client_id: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Shard:
        """A client's rows, ready to train on.

        Raises:
            DataError: This worker has no rows of that client, or none fits the length.
        """
        key = (client_id, id(tokenizer), max_length)
        if key not in self._shards:
            self._shards[key] = self._read(client_id, tokenizer, max_length)
        return self._shards[key]

    def _read(self, client_id: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Shard:
        path = self._files().get(client_id)
        if path is None:
            raise DataError(f"{self._directory} has no rows of {client_id}", "check --data")
        train, holdout = shards.split(instructions.read(path).rows)
        learned = tokens.encode(tokenizer, train, max_length).examples
        measured = tokens.encode(tokenizer, holdout, max_length).examples
        if not learned or not measured:
            raise DataError(f"no row of {path} fits {max_length} tokens", "raise model.max_length")
        return Shard(learned, measured[:HOLDOUT_EXAMPLES])

    def _files(self) -> dict[str, Path]:
        files = {
            path.name.removesuffix(SUFFIX): path for path in self._directory.glob(f"*{SUFFIX}")
        }
        files.pop(HELDOUT, None)
        return files

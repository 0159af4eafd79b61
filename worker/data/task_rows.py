"""Rows that one task uses: those of its batches, and those on which it measures.

Both are known before the task trains, so that nothing is computed for other rows. What measuring
costs is counted in tokens, not taken from a clock: the same task measures on the same rows on every
machine.

`worker/data/shards.py` has all rows of a client; `worker/trainer.py` comes next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from common.protocol.tasks import LocalTraining
from learning.objectives.kto import TokenisedRating
from learning.training.batches import shuffled_indexes
from learning.training.loop import total_steps
from worker.data.shards import TokenisedShard

HOLDOUT_EXAMPLES = 48  # measured before and after a task at most; enough to compare, and quick
LEAST_EXAMPLES = 8
"""Fewest rows that are measured, unless the client has fewer: the mean of less is noise."""
TRAINING_PASSES = 3
"""Forward passes that a token counts as in training: its own, and about two for the backward pass.

This is a model of the cost, not a measurement.
"""


@dataclass(frozen=True)
class TaskRows:
    """What a task uses of a client's rows."""

    used: frozenset[int]  # indexes of the training examples in its batches
    measured: Sequence[Any]  # holdout examples; none where the budget is too small


def select_rows(
    shard: TokenisedShard, training: LocalTraining, seed: int, budget: float | None
) -> TaskRows:
    """Select the rows of a task.

    Args:
        shard: All rows that it may use; the holdout in the order in which rows are chosen.
        seed: Seed of the task, which decides its batches.
        budget: `TrainTask.holdout_budget`.
    """
    lengths = [example.length for example in shard.train]
    batches = shuffled_indexes(lengths, training.batch_size, seed)
    chosen = [i for batch in islice(batches, total_steps(training, len(lengths))) for i in batch]
    holdout = [_measured_tokens(example) for example in shard.holdout]
    count = count_measured(holdout, sum(_trained_tokens(shard.train[i]) for i in chosen), budget)
    return TaskRows(frozenset(chosen), shard.holdout[:count])


def count_measured(holdout: Sequence[int], trained: int, budget: float | None) -> int:
    """Return how many of the first holdout rows a task measures.

    With m tokens in these rows and forward passes over n tokens in training, 2·m ≤ budget · n: both
    measurements together take at most that share of the training time.

    Args:
        holdout: Tokens of each row.
        trained: n; a token counts once for each pass.
        budget: Share of the training time; None measures in any case.
    """
    rows = holdout[:HOLDOUT_EXAMPLES]
    if budget is None:
        return len(rows)
    left = round(budget * trained, 6)  # 0.15 · 1200 is 180, not a little less
    count = 0
    for tokens in rows:
        left -= 2 * tokens
        if left < 0:
            break
        count += 1
    return count if count >= min(LEAST_EXAMPLES, len(rows)) else 0


def _measured_tokens(example: Any) -> int:
    """Return the tokens that one measurement of an example reads."""
    mismatched = example.mismatched.length if isinstance(example, TokenisedRating) else 0
    return int(example.length) + mismatched


def _trained_tokens(example: Any) -> int:
    """Return the tokens of all passes of one training step over an example.

    For kto, one forward pass over the mismatched answer estimates z₀.
    """
    matched = isinstance(example, TokenisedRating) and example.is_matched
    return TRAINING_PASSES * int(example.length) + (example.mismatched.length if matched else 0)

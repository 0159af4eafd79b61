"""Splits of rows by hash: the held-out set of a run, and the three sides of one client's rows.

A split goes by a hash of a row's text, so that equal rows are never on two sides and a row stays on
its side when the data set grows.

Data path: `learning.data.shards` sets held-out rows aside with `hold_out`; workers and evaluations
divide a client's rows with `split_rows`. Next: `learning.objectives.tokens`.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from learning.data.row_types import Conversation, Instruction, LabelledText, PreferencePair, Row

MAX_HELDOUT = 400
"""Most rows of a global held-out set: enough to compare versions, quick to evaluate."""
HOLDOUT = 0.1
"""Share of a client's rows on which it measures the model before and after every task."""
VALIDATION = 0.1
"""Share of a client's rows that only `fccl evaluate` reads; no task trains or measures on them."""
SIDES = 3
"""Train, validation, holdout."""

R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Split(Generic[R]):
    """A client's rows by side, each side in the order of the rows."""

    train: tuple[R, ...]
    validation: tuple[R, ...]
    holdout: tuple[R, ...]


def split_rows(rows: Sequence[R]) -> Split[R]:
    """Split a client's rows into a training, a validation and a holdout side by hash.

    The smallest hashes are the holdout, the largest the validation side, so that neither moves when
    the size of the other changes. With three distinct rows or more, each side has at least one;
    with two, the validation side stays empty. Rows that are all equal fill train and holdout in
    halves; a single row is for training. Preference pairs of one prompt count as equal.

    The hash differs from the one that set the global held-out rows aside, which leaves only large
    values of its own.
    """
    ranks = [row_rank(row, "client") for row in rows]
    ordered = sorted(set(ranks))
    if len(ordered) < 2:
        half = len(rows) // 2
        return Split(tuple(rows[half:]), (), tuple(rows[:half]))
    low, high = _cuts(ordered)
    sides: tuple[list[R], list[R], list[R]] = ([], [], [])
    for row, rank in zip(rows, ranks, strict=True):
        sides[2 if rank <= low else 1 if rank > high else 0].append(row)
    return Split(*map(tuple, sides))


def _cuts(ordered: Sequence[float]) -> tuple[float, float]:
    """Return the last rank of the holdout and of the training side, given at least two ranks."""
    n = len(ordered)
    last = min(max(bisect_left(ordered, HOLDOUT), 1), n - min(n - 1, SIDES - 1))
    above = n - bisect_left(ordered, 1 - VALIDATION)
    above = min(max(above, 1), n - last - 1)
    return ordered[last - 1], ordered[n - above - 1]


def hold_out(rows: Sequence[Row], share: float) -> tuple[list[Row], list[Row]]:
    """Return the held-out rows and the others, each in their order."""
    ranks = [row_rank(row, "all") for row in rows]
    ordered = sorted(ranks)
    below = sum(rank < share for rank in ranks)
    cut = ordered[max(0, min(below, MAX_HELDOUT) - 1)] if ordered else 0.0
    heldout = [row for row, rank in zip(rows, ranks, strict=True) if rank <= cut]
    return heldout, [row for row, rank in zip(rows, ranks, strict=True) if rank > cut]


def row_rank(row: Row, salt: str) -> float:
    """Return a number in [0, 1) that follows from a row's text, the same on every machine.

    Of a preference pair only the prompt counts: a side that has seen one pair of a prompt has seen
    part of the answer to its other pairs.
    """
    match row:
        case Instruction():
            parts = [row.instruction, row.input, row.output]
        case Conversation():
            parts = [str(turn) for turn in row.messages]
        case PreferencePair():
            prompt = row.prompt
            parts = [prompt] if isinstance(prompt, str) else [str(turn) for turn in prompt]
        case LabelledText():
            parts = [row.text]
    text = json.dumps([salt, *parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48

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
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from learning.data.row_types import (
    Conversation,
    Instruction,
    LabelledText,
    Message,
    PreferencePair,
    RatedAnswer,
    Row,
)

MAX_HELDOUT = 400
"""Most rows of a global held-out set: enough to compare versions, quick to evaluate."""
HOLDOUT = 0.1
"""Share of a client's rows on which it measures the model before and after every task."""
VALIDATION = 0.1
"""Share of a client's rows that only `fccl evaluate` reads; no task trains or measures on them."""
SIDES = 3
"""Train, validation, holdout."""

_FEW = 2  # this many equal rows fit on any side

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
    halves; a single row is for training. Judged answers with the same prompt count as equal. A
    row that is repeated so often that it would fill a small side is for training.

    The hash differs from the one that set the global held-out rows aside, which leaves only large
    values of its own.
    """
    ranks = [row_rank(row, "client") for row in rows]
    sizes = Counter(ranks)
    ordered = sorted(sizes)
    if len(ordered) < 2:
        half = len(rows) // 2
        return Split(tuple(rows[half:]), (), tuple(rows[:half]))
    last, above = _counts(ordered)
    others = min(len(ordered) - 1, SIDES - 1)
    holdout = _choose(ordered, sizes, last, HOLDOUT * len(rows), others)
    rest = [rank for rank in reversed(ordered) if rank not in holdout]
    above = min(above, len(rest) - 1)
    validation = _choose(rest, sizes, above, VALIDATION * len(rows), 1) if above else set()
    sides: tuple[list[R], list[R], list[R]] = ([], [], [])
    for row, rank in zip(rows, ranks, strict=True):
        sides[2 if rank in holdout else 1 if rank in validation else 0].append(row)
    return Split(*map(tuple, sides))


def _counts(ordered: Sequence[float]) -> tuple[int, int]:
    """Return how many ranks, of at least two, are for the holdout and for the validation side."""
    n = len(ordered)
    last = min(max(bisect_left(ordered, HOLDOUT), 1), n - min(n - 1, SIDES - 1))
    above = n - bisect_left(ordered, 1 - VALIDATION)
    return last, min(max(above, 1), n - last - 1)


def hold_out(rows: Sequence[Row], share: float) -> tuple[list[Row], list[Row]]:
    """Return the held-out rows and the others, each in their order.

    Equal rows stay together. A row that is repeated so often that the held-out set would exceed its
    share goes to the clients; if all rows are equal, they are all held out.
    """
    ranks = [row_rank(row, "all") for row in rows]
    sizes = Counter(ranks)
    ordered = sorted(sizes)
    below = max(1, min(bisect_left(ordered, share), MAX_HELDOUT))
    aside = _choose(ordered, sizes, below, min(share * len(rows), MAX_HELDOUT), 1)
    heldout = [row for row, rank in zip(rows, ranks, strict=True) if rank in aside]
    return heldout, [row for row, rank in zip(rows, ranks, strict=True) if rank not in aside]


def _choose(
    candidates: Sequence[float],
    sizes: Mapping[float, int],
    count: int,
    expected: float,
    others: int,
) -> set[float]:
    """Return the ranks of a side: the first `count`, without groups of equal rows too large for it.

    Args:
        candidates: Ranks of the rows in order of preference.
        sizes: Number of equal rows by rank.
        expected: Number of rows that the side should have. If there are large groups, further
            ranks are added until the side is full.
        others: Number of ranks to leave for the other sides.
    """
    room = max(round(expected), count)
    large = max(_FEW, room // 4)
    chosen: set[float] = set()
    rows, fill = 0, any(sizes[rank] > large for rank in candidates)
    for place, rank in enumerate(candidates):
        full = rows >= room or len(chosen) + others >= len(candidates)
        if place >= count and (not fill or full):
            break
        if rows + sizes[rank] <= room or (place < count and sizes[rank] <= large):
            chosen.add(rank)
            rows += sizes[rank]
    if not chosen and candidates:
        chosen = {min(candidates, key=lambda rank: sizes[rank])}
    return chosen


def row_rank(row: Row, salt: str) -> float:
    """Return a number in [0, 1) that follows from a row's text, the same on every machine.

    For judged answers only the prompt counts: a side that has seen one pair or one rated answer of
    a prompt has seen part of the answer to its others.
    """
    parts: Sequence[str | list[str]]
    match row:
        case Instruction():
            parts = [row.instruction, row.input, row.output]
        case Conversation():
            parts = [row.tools, *_parts(row.messages)]
        case PreferencePair() | RatedAnswer():
            parts = [row.prompt] if isinstance(row.prompt, str) else _parts(row.prompt)
        case LabelledText():
            parts = [row.text]
    text = json.dumps([salt, *parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def _parts(turns: Sequence[Message]) -> list[list[str]]:
    return [[turn.role, turn.content, turn.tool_calls] for turn in turns]

"""Selection of what a shadow model is trained on: new items mixed with old rows. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import cycle, islice
from typing import TypeVar

HOLD_OUT_ONE_IN = 5  # new items: one measures, and is not trained on
PASSES = 10  # over the new items, if the limit on steps allows
MIN_STEPS = 5  # a single correction is worth that many

T = TypeVar("T")


def split_held_out(keys: Sequence[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the indices of new items to train on, and of those to measure on, chosen by hash.

    With fewer than five items none is held out.
    """
    order = sorted(range(len(keys)), key=lambda i: keys[i])
    held = frozenset(order[: len(keys) // HOLD_OUT_ONE_IN])
    train = tuple(i for i in range(len(keys)) if i not in held)
    return train, tuple(sorted(held))


def balanced_sample(
    rows: Sequence[T], size: int, seed: int, group: Callable[[T], Hashable] = lambda row: None
) -> list[T]:
    """Return up to `size` rows in random order, spread as evenly over their groups as possible."""
    rng = random.Random(seed)
    groups = _grouped(rows, group)
    for members in groups:
        rng.shuffle(members)
    return [row for turn in _turns(groups) for row in turn][:size]


def balanced_prefix(
    rows: Sequence[T], fewest: int, group: Callable[[T], Hashable] = lambda row: None
) -> list[T]:
    """Return the first rows of each group, as many of each as the smallest has, in turns.

    If these are fewer than `fewest` in all, the larger groups contribute more, up to that number.
    """
    groups = _grouped(rows, group)
    chosen: list[T] = []
    for turn in _turns(groups):
        if len(turn) < len(groups) and len(chosen) >= fewest:
            break
        chosen += turn
    return chosen


def _grouped(rows: Sequence[T], group: Callable[[T], Hashable]) -> list[list[T]]:
    groups: dict[Hashable, list[T]] = {}
    for row in rows:
        groups.setdefault(group(row), []).append(row)
    return list(groups.values())


def _turns(groups: Sequence[Sequence[T]]) -> Iterator[list[T]]:
    """Yield the first rows of all groups, then the second ones, and so on."""
    for place in range(max(map(len, groups), default=0)):
        yield [members[place] for members in groups if place < len(members)]


def step_count(new: int, batch_size: int, replay: float, most: int) -> int:
    """Return the number of optimizer steps for some new items, of `batch_size` examples each.

    That is `PASSES` over the items, but at least `MIN_STEPS` and at most `most`. A share `replay`
    of the examples, from 0 to below 1, are old rows.
    """
    steps = math.ceil(PASSES * new / (batch_size * (1 - replay)))
    return min(most, max(MIN_STEPS, steps))


def mix(new: Sequence[T], old: Sequence[T], total: int, replay: float) -> list[T]:
    """Return `total` examples, of which a share `replay` are old (none if there are no old rows).

    Both kinds are repeated if they are too few.
    """
    repeated = round(total * replay) if old else 0
    return [*islice(cycle(new), total - repeated), *islice(cycle(old), repeated)]

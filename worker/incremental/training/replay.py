"""What a shadow copy is trained on: new items among old rows. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable, Sequence
from itertools import cycle, islice
from typing import TypeVar

HELD = 5  # of so many new items one measures and is not trained on
PASSES = 10  # over new items, if so many steps are allowed
FEWEST = 5  # steps: a single correction is worth that much

T = TypeVar("T")


def split_held_out(keys: Sequence[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Parts new items into those to train on and those to measure by, by their hashes.

    Args:
        keys: SHA-256 of each, in hex.

    Returns:
        The places of both. Fewer than five items all train, and none is held out.
    """
    order = sorted(range(len(keys)), key=lambda place: keys[place])
    held = frozenset(order[: len(keys) // HELD])
    train = tuple(place for place in range(len(keys)) if place not in held)
    return train, tuple(sorted(held))


def balanced_sample(
    rows: Sequence[T], size: int, seed: int, group: Callable[[T], Hashable] = lambda row: None
) -> list[T]:
    """At most `size` of the rows, as evenly over their groups as these allow, in random order."""
    rng = random.Random(seed)
    groups: dict[Hashable, list[T]] = {}
    for row in rows:
        groups.setdefault(group(row), []).append(row)
    for members in groups.values():
        rng.shuffle(members)
    chosen: list[T] = []
    for place in range(max(map(len, groups.values()), default=0)):
        chosen += [members[place] for members in groups.values() if place < len(members)]
    return chosen[:size]


def balanced_prefix(
    rows: Sequence[T], fewest: int, group: Callable[[T], Hashable] = lambda row: None
) -> list[T]:
    """The first rows of each group, as many of each as the smallest has; groups take turns.

    Where that is fewer than `fewest` in all, larger groups go on by themselves up to that many.
    """
    groups: dict[Hashable, list[T]] = {}
    for row in rows:
        groups.setdefault(group(row), []).append(row)
    smallest = min(map(len, groups.values()), default=0)
    turns = max(map(len, groups.values()), default=0)
    chosen: list[T] = []
    for place in range(turns):
        if place >= smallest and len(chosen) >= fewest:
            break
        chosen += [members[place] for members in groups.values() if place < len(members)]
    return chosen


def step_count(new: int, batch_size: int, replay: float, most: int) -> int:
    """Optimizer steps for so many new items: `PASSES` over them, `FEWEST` at least, `most` at most.

    Args:
        new: Items to train on.
        batch_size: Examples a step.
        replay: Share of old rows among them, from 0 to under 1.
        most: The limit.
    """
    wanted = math.ceil(PASSES * new / (batch_size * (1 - replay)))
    return min(most, max(FEWEST, wanted))


def mix(new: Sequence[T], old: Sequence[T], total: int, replay: float) -> list[T]:
    """`total` examples of which a share `replay` are old; both repeat where they are few.

    Without old rows all are new.
    """
    repeated = round(total * replay) if old else 0
    return [*islice(cycle(new), total - repeated), *islice(cycle(old), repeated)]

"""Batches of examples of similar lengths, in seeded random order, without end.

Padding costs as much time as tokens, so examples of similar lengths share a batch and each batch is
padded only to its own longest example. Measured on mixed instructions this leaves a few percent of
padding, where padding to a fixed length costs a multiple.

Each objective makes its batches with a `collate` of its own; order and padding are defined here.
Data path: `learning.objectives.tokens` → here → `learning.training.loop` and
`learning.evaluation.inference`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Protocol, TypeVar

import torch

from common.errors import ModelError
from learning.objectives.tokens import IGNORED, TokenisedExample
from learning.training.out_of_memory import REMEDY, free_memory, noting_out_of_memory

WIDTH_MULTIPLE = 16
"""Widths are multiples of this, so that kernels cached per shape (those of oneDNN for bfloat16) are
used again and their cache does not grow without end.
"""
EVALUATION_TOKENS = 2048
"""Tokens of a batch without gradients, padding included.

A fixed number of rows would be too little work for short rows, and too much memory for long ones.
"""
_POOL = 32  # batches sorted by length together; more of them pad less and mix less
_JITTER = 0.05  # random share of a length when sorting, so that epochs differ in their batches


class Example(Protocol):
    """A tokenised example of any objective."""

    @property
    def length(self) -> int:
        """Cost in tokens: examples of similar lengths share a batch."""


class Batch(Protocol):
    """A batch of any objective."""

    @property
    def size(self) -> int:
        """Number of examples."""

    @property
    def tokens(self) -> int: ...

    @property
    def target_count(self) -> int:
        """Number of response tokens, pairs or texts of which the loss is a mean."""


E = TypeVar("E", bound=Example)
B = TypeVar("B")
R = TypeVar("R")


@dataclass(frozen=True)
class TokenBatch:
    """Right-padded examples; every tensor is int64 of shape (B, T)."""

    input_ids: torch.Tensor  # padding is 0 and masked
    attention_mask: torch.Tensor  # 1 on tokens, 0 on padding
    labels: torch.Tensor  # token ids to learn, `IGNORED` elsewhere; not shifted
    tokens: int  # that are not padding
    target_count: int  # positions to learn
    whole_target_count: int  # of the whole batch, if this is a part of one

    @property
    def size(self) -> int:
        return self.input_ids.shape[0]


def collate(
    examples: Sequence[TokenisedExample],
    device: torch.device | None = None,
    whole: Sequence[TokenisedExample] | None = None,
) -> TokenBatch:
    """Pad examples to the longest of them, rounded up to a multiple of `WIDTH_MULTIPLE`.

    No padding token is needed: padding to the right of a causal model's tokens changes nothing, and
    it is masked.

    Args:
        whole: All examples of the batch that these are a part of; None if they are all.
    """
    ids, mask = pad([e.input_ids for e in examples])
    labels = [e.labels + (IGNORED,) * (ids.shape[1] - len(e.labels)) for e in examples]
    return TokenBatch(
        ids.to(device),
        mask.to(device),
        torch.tensor(labels, device=device),
        sum(len(e.input_ids) for e in examples),
        sum(e.target_count for e in examples),
        sum(e.target_count for e in (whole or examples)),
    )


def pad(sequences: Sequence[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad ids with 0 to a multiple of `WIDTH_MULTIPLE`; return ids and mask, int64 (B, T)."""
    width = padded_width(max(map(len, sequences)))
    ids = [ids + (0,) * (width - len(ids)) for ids in sequences]
    mask = [(1,) * len(ids) + (0,) * (width - len(ids)) for ids in sequences]
    return torch.tensor(ids), torch.tensor(mask)


def padded_width(length: int) -> int:
    """Return the width to which a batch is padded whose longest example has that length."""
    return -(-length // WIDTH_MULTIPLE) * WIDTH_MULTIPLE


def batches_per_epoch(n: int, batch_size: int) -> int:
    return -(-n // batch_size)


def shuffled_batches(examples: Sequence[E], batch_size: int, seed: int) -> Iterator[list[E]]:
    """Yield the examples of batches without end; each pass holds every example once.

    Each pass has an order of its own.

    The batches of a pass have nearly equal sizes, at most `batch_size`: a pass of 17 examples in
    batches of 16 is 9 and 8, since a batch of one would weigh its example 16-fold.
    """
    for chosen in shuffled_indexes([e.length for e in examples], batch_size, seed):
        yield [examples[i] for i in chosen]


def shuffled_indexes(lengths: Sequence[int], batch_size: int, seed: int) -> Iterator[list[int]]:
    """Yield the indexes of the examples in each batch of `shuffled_batches`, without end.

    So it is known before training which examples a task will use.
    """
    if not lengths:
        raise ValueError("no examples to batch")
    rng = Random(f"batches {seed}")
    while True:
        yield from _epoch(lengths, batch_size, rng)


def sorted_batches(
    examples: Sequence[E], collate: Callable[[Sequence[E]], B], tokens: int = EVALUATION_TOKENS
) -> Iterator[B]:
    """Yield every example once, sorted by length (`length_order`), for evaluation.

    A batch has at most `tokens`, padding included; a longer example has a batch of its own.
    """
    ordered = [examples[i] for i in length_order(examples)]
    while ordered:
        chosen = _first_batch(ordered, tokens)
        yield collate(chosen)
        del ordered[: len(chosen)]


def computed_batches(
    examples: Sequence[E],
    collate: Callable[[Sequence[E]], B],
    compute: Callable[[B], R],
    tokens: int = EVALUATION_TOKENS,
) -> Iterator[tuple[B, R]]:
    """Yield the batches of `sorted_batches`, each with what `compute` returns for it.

    When memory runs out, this batch and the following ones have half as many tokens.

    Raises:
        ModelError: Memory does not suffice for one example.
    """
    ordered = [examples[i] for i in length_order(examples)]
    while ordered:
        chosen = _first_batch(ordered, tokens)
        result: list[tuple[B, R]] = []
        with noting_out_of_memory() as failed:
            batch = collate(chosen)
            result = [(batch, compute(batch))]
        if failed:
            free_memory()
            longest = chosen[-1].length
            if len(chosen) == 1:
                raise ModelError(f"out of memory at one example of {longest} tokens", REMEDY)
            tokens = len(chosen) * padded_width(longest) // 2
            continue
        yield from result
        del ordered[: len(chosen)]


def _first_batch(ordered: Sequence[E], tokens: int) -> Sequence[E]:
    """Return the examples of the first batch of so many tokens; at least one."""
    count = 1  # sorted, so that the last example of a batch is the longest
    while count < len(ordered) and (count + 1) * padded_width(ordered[count].length) <= tokens:
        count += 1
    return ordered[:count]


def length_order(examples: Sequence[Example]) -> list[int]:
    """Return the indices of examples, shortest first: the order of `sorted_batches`."""
    return sorted(range(len(examples)), key=lambda i: examples[i].length)


def _epoch(lengths: Sequence[int], batch_size: int, rng: Random) -> list[list[int]]:
    order = list(range(len(lengths)))
    rng.shuffle(order)
    noisy = [length * (1 + _JITTER * rng.random()) for length in lengths]
    count = batches_per_epoch(len(order), batch_size)
    cuts = [i * len(order) // count for i in range(count + 1)]
    for low in range(0, count, _POOL):  # a pool ends where a batch ends
        pool = slice(cuts[low], cuts[min(low + _POOL, count)])
        order[pool] = sorted(order[pool], key=noisy.__getitem__)
    batches = [order[a:b] for a, b in pairwise(cuts)]
    rng.shuffle(batches)
    return batches

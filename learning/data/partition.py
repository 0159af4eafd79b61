"""Partition of rows over clients, skewed on purpose, since the owners of real data are not alike.

For every label, shares over the clients are drawn from a Dirichlet(α) distribution, and the label's
rows are dealt by them (Hsu et al. 2019). A small α gives each client few labels and unequal sizes;
a large α makes the clients alike.

Data path: `learning.data.rows` → here → `learning.data.shards` (files).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.errors import ConfigError, DataError
from learning.data.clusters import cluster_topics
from learning.data.row_types import (
    Conversation,
    Instruction,
    LabelledText,
    Message,
    PreferencePair,
    RatedAnswer,
    Row,
)

_LENGTH_BINS = 5


def partition_labels(rows: Sequence[Row], by: str, seed: int) -> list[str]:
    """Return the label of each row by which a partition is skewed.

    A labelled text is skewed by its class under `topic` and `label` alike, a rated answer under
    `label` by its rating, and other rows by their topic, so that one setting serves a run of
    several kinds.

    Args:
        by: `topic` or `label` (the class; otherwise the rows' own topic where all have one, or else
            word clusters of what users say), or `length` (five equal groups by the length of the
            answer, of all answers of a conversation, of the chosen answer or of the text).

    Raises:
        ConfigError: `by` is none of them.
    """
    if by == "length":
        return _lengths([len(_measured_text(row)) for row in rows])
    if by not in ("topic", "label"):
        raise ConfigError(f"data.partition is {by!r}", "set it to topic, label or length")
    if by == "label" and all(isinstance(row, RatedAnswer) for row in rows):
        return ["good" if isinstance(row, RatedAnswer) and row.good else "bad" for row in rows]
    if all(map(_own_label, rows)):
        return [_own_label(row) for row in rows]
    return cluster_topics([_question(row) for row in rows], seed)


def _lengths(sizes: Sequence[int]) -> list[str]:
    edges = np.quantile(sizes, np.arange(1, _LENGTH_BINS) / _LENGTH_BINS)
    bins = np.searchsorted(edges, sizes, side="left")
    tops = [f"up to {int(edge)} characters" for edge in edges] + ["longer"]
    return [f"{b}: {tops[b]}" for b in bins]


def _own_label(row: Row) -> str:
    return row.label if isinstance(row, LabelledText) else row.topic


def _question(row: Row) -> str:
    match row:
        case Instruction():
            return row.instruction
        case LabelledText():
            return row.text
        case Conversation():
            return _user_texts(row.messages)
        case PreferencePair() | RatedAnswer():
            return row.prompt if isinstance(row.prompt, str) else _user_texts(row.prompt)


def _user_texts(turns: Sequence[Message]) -> str:
    return "\n".join(turn.content for turn in turns if turn.role == "user")


def _measured_text(row: Row) -> str:
    if isinstance(row, Instruction):
        return row.output
    if isinstance(row, Conversation):
        answers = [turn for turn in row.messages if turn.role == "assistant"]
        return "".join(turn.content + turn.tool_calls for turn in answers)
    if isinstance(row, RatedAnswer):
        return row.completion
    return row.chosen if isinstance(row, PreferencePair) else row.text


def dirichlet_partition(
    labels: Sequence[str], clients: int, alpha: float, seed: int, minimum: int
) -> list[list[int]]:
    """Deal the row numbers 0 … len(labels)−1 to clients; each row goes to exactly one.

    Args:
        alpha: Concentration of the Dirichlet distribution, > 0.
        minimum: Least number of rows per client; the largest clients give what others lack.

    Returns:
        Sorted row numbers, one list per client.

    Raises:
        ConfigError: `clients` or `alpha` is not positive.
        DataError: There are fewer than clients × minimum rows.
    """
    if clients < 1 or not alpha > 0:
        raise ConfigError(
            f"data.clients = {clients}, data.alpha = {alpha:g}", "both must be greater than 0"
        )
    if len(labels) < clients * minimum:
        raise DataError(
            f"{len(labels)} rows are too few for {clients} clients (at least {minimum} each)",
            "lower data.clients or give more rows",
        )
    rng = np.random.default_rng(seed)
    dealt: list[list[int]] = [[] for _ in range(clients)]
    members: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        members.setdefault(label, []).append(i)
    for label in sorted(members):
        rows = rng.permutation(members[label])
        shares = rng.dirichlet([alpha] * clients) if clients > 1 else np.ones(1)
        if not np.isfinite(shares).all():  # α so small that every gamma draw underflows
            shares = np.eye(clients)[rng.integers(clients)]
        cuts = np.round(np.cumsum(shares)[:-1] * len(rows)).astype(int)
        for own, part in zip(dealt, np.split(rows, cuts), strict=True):
            own.extend(int(i) for i in part)
    _fill(dealt, minimum, rng)
    return [sorted(own) for own in dealt]


def _fill(dealt: list[list[int]], minimum: int, rng: np.random.Generator) -> None:
    """Move random rows, one by one, from the largest client to those that have too few."""
    for own in dealt:
        while len(own) < minimum:
            giver = max(dealt, key=len)
            own.append(giver.pop(int(rng.integers(len(giver)))))

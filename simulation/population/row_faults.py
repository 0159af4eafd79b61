"""Faulty clients that learn from wrong labels; [simulation] `faults` names what they do.

    labels-swapped  Every label is another one: the next class, the rejected answer, the opposite
                    rating; answers to instructions change places in pairs.
    labels-random   Every label is drawn anew; answers to instructions are shuffled.

Rows are changed once, when the run directory is made, so that such a client also evaluates on wrong
labels. `simulation/population/update_faults.py` has the other faults.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from common.config.simulation import FaultKind, SimulationConfig
from learning.data import prepared_data
from learning.data import rows as rows_of
from learning.data.row_types import (
    Conversation,
    Instruction,
    LabelledText,
    PreferencePair,
    RatedAnswer,
    Row,
)
from simulation.population.streams import Streams


def spoil_rows(
    folder: Path,
    faulty: Sequence[str],
    config: SimulationConfig,
    labels: Sequence[str],
    streams: Streams,
) -> None:
    """Change the labels of the faulty clients in a folder of prepared data."""
    if not any(fault.startswith("labels-") for fault in config.faults):
        return
    for number, shard in enumerate(prepared_data.load(folder).shards):
        if shard.client_id in faulty:
            rows = rows_of.read(shard.kind, shard.path).rows
            rng = streams.of("labels", number)
            rows_of.write(shard.path, spoiled(rows, config.faults, labels, rng))


def spoiled(
    rows: Sequence[Row],
    faults: Sequence[FaultKind],
    labels: Sequence[str],
    rng: np.random.Generator,
) -> list[Row]:
    """Return rows with labels that are swapped or drawn anew."""
    random = "labels-random" in faults
    if rows and isinstance(rows[0], Instruction | Conversation):
        order = rng.permutation(len(rows)) if random else _pairwise(len(rows))
        found = cast("Sequence[Instruction | Conversation]", rows)
        return [_with_answer(row, found[i].answer) for row, i in zip(found, order, strict=True)]
    return [_relabelled(row, labels, rng, random) for row in rows]


def _relabelled(row: Row, labels: Sequence[str], rng: np.random.Generator, random: bool) -> Row:
    match row:
        case LabelledText():
            step = int(rng.integers(len(labels))) if random else 1
            place = (labels.index(row.label) + step) % len(labels)
            return replace(row, label=labels[place])
        case PreferencePair():
            kept = random and rng.random() < 0.5
            return row if kept else replace(row, chosen=row.rejected, rejected=row.chosen)
        case RatedAnswer():
            return replace(row, good=bool(rng.random() < 0.5) if random else not row.good)
    return row


def _pairwise(count: int) -> list[int]:
    """Return the places 1, 0, 3, 2, …; the last of an odd number keeps its place."""
    return [min(i ^ 1, count - 1) if i ^ 1 < count else i for i in range(count)]


def _with_answer(row: Instruction | Conversation, answer: str) -> Row:
    if isinstance(row, Instruction):
        return replace(row, output=answer)
    last = max(i for i, turn in enumerate(row.messages) if turn.role == "assistant")
    turns = list(row.messages)
    turns[last] = replace(turns[last], content=answer)
    return replace(row, messages=tuple(turns))

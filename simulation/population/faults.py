"""Faulty and hostile clients: what they learn from, what they send and what they claim.

    labels-swapped  Every label is another one: the next class, the rejected answer, the opposite
                    rating; answers to instructions change places in pairs.
    labels-random   Every label is drawn anew; answers to instructions are shuffled.
    lie-loss        Claims a training loss and a loss after training of almost nothing.
    lie-size        Claims a thousand times the rows that it has.
    sign-flip       Sends −s · Δ, where s is `simulation.fault_scale`.
    scale           Sends s · Δ.
    noise           Sends Gaussian noise with s times the norm of Δ instead of Δ.
    collude         Sends one direction, the same for all such clients and in every task, with
                    s times the norm of Δ.

Rows are changed once, when the run directory is made, so that such a client also evaluates on wrong
labels. Updates and claims are changed after training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from common.config.simulation import FaultKind, SimulationConfig
from common.protocol.tensors import Tensors
from common.protocol.updates import ContributionStats
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
from simulation.work.work import Trained

CLAIMED_LOSS = 1e-4  # nats
CLAIMED_SIZE = 1000


def changes_rows(faults: Sequence[FaultKind]) -> bool:
    return any(fault.startswith("labels-") for fault in faults)


def spoil_rows(
    folder: Path,
    faulty: Sequence[str],
    config: SimulationConfig,
    labels: Sequence[str],
    streams: Streams,
) -> None:
    """Change the labels of the faulty clients in a folder of prepared data."""
    if not changes_rows(config.faults):
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


def corrupt(
    trained: Trained, config: SimulationConfig, streams: Streams, client: int, number: int
) -> Trained:
    """Return what a faulty client sends after its `number`-th task."""
    delta, norm = trained.delta, l2_norm(trained.delta)
    scale = config.fault_scale
    for fault in config.faults:
        match fault:
            case "sign-flip":
                delta = {name: np.float32(-scale) * tensor for name, tensor in delta.items()}
            case "scale":
                delta = {name: np.float32(scale) * tensor for name, tensor in delta.items()}
            case "noise":
                delta = _direction(delta, scale * norm, streams.of("noise", client, number))
            case "collude":
                delta = _direction(delta, scale * norm, streams.of("collude"))
    stats = trained.stats.model_copy(update={"delta_norm": l2_norm(delta)})
    return Trained(delta, _claimed(stats, config.faults))


def _direction(like: Tensors, norm: float, rng: np.random.Generator) -> Tensors:
    """Return random tensors of the same shapes with a norm over all of them."""
    drawn = {name: rng.standard_normal(t.shape, dtype=np.float32) for name, t in like.items()}
    factor = np.float32(norm / (l2_norm(drawn) or 1.0))
    return {name: factor * tensor for name, tensor in drawn.items()}


def _claimed(stats: ContributionStats, faults: Sequence[FaultKind]) -> ContributionStats:
    changes: dict[str, object] = {}
    if "lie-loss" in faults:
        changes["avg_loss"] = CLAIMED_LOSS
        if stats.loss_after is not None:
            changes["loss_after"] = CLAIMED_LOSS
    if "lie-size" in faults:
        changes["num_samples"] = CLAIMED_SIZE * stats.num_samples
    return stats.model_copy(update=changes)


def l2_norm(tensors: Tensors) -> float:
    """Return the L2 norm over all tensors."""
    return math.sqrt(sum(float(np.square(t, dtype=np.float64).sum()) for t in tensors.values()))

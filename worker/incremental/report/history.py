"""What a client's inbox tells of its past: every batch with its verdict, and the streams they make.

Read by `fccl evaluate --incremental`; changes nothing. Figures only: no item is read, but counted.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.protocol.fields import RowKind
from worker.incremental.inbox import schema
from worker.incremental.report.stream import BEFORE, OWN, TaskMeasurement

STATES = ("waiting", "learned", "settled", "rejected", "superseded")


@dataclass(frozen=True)
class BatchRecord:
    """One attempt to learn.

    Attributes:
        number: In the inbox; 0 until it is written there.
        reason: Why it was rejected. Told to others: never user text.
        figures: Those that the gate saw, by name (`worker/incremental/training/gate.py`); measurements are
            maps of `loss` and `accuracy`, or None.
    """

    number: int
    run: str
    version: int
    kind: RowKind
    task: str
    at: float
    items: int
    held: int
    steps: int
    seconds: float
    verdict: str
    reason: str
    figures: Mapping[str, Any]

    @property
    def accepted(self) -> bool:
        """Whether it was kept."""
        return self.verdict == "accepted"

    def figure(self, name: str, part: str = "loss") -> float | None:
        """A part of a measurement; None where there is none."""
        found = self.figures.get(name)
        value = found.get(part) if isinstance(found, Mapping) else None
        return None if value is None or not math.isfinite(value) else float(value)


@dataclass(frozen=True)
class LearningStream:
    """What one run learned from items of one kind: its losses can be compared."""

    run: str
    kind: RowKind
    batches: tuple[BatchRecord, ...]
    measures: tuple[TaskMeasurement, ...]


@dataclass(frozen=True)
class ClientHistory:
    """One client's.

    Attributes:
        client: Its name.
        items: How many there are in each state.
        refused: Why items were rejected that no batch could be made of, and how many each.
        streams: The oldest first.
    """

    client: str
    items: Mapping[str, int]
    refused: Mapping[str, int]
    streams: tuple[LearningStream, ...]

    @property
    def batches(self) -> int:
        """Attempts to learn, over all streams."""
        return sum(len(stream.batches) for stream in self.streams)


def clients(state: Path) -> tuple[str, ...]:
    """The clients that have an inbox here, by name."""
    return tuple(sorted(path.parent.name for path in (state / "inbox").glob(f"*/{schema.FILE}")))


def read(state: Path, client: str) -> ClientHistory:
    """The history of a client that has an inbox, as of one moment.

    Raises:
        DataError: The file cannot be used.
    """
    path = schema.inbox_path(state, client)
    with closing(schema.connect(path)) as db:
        try:
            db.execute("BEGIN")  # a worker that learns meanwhile changes nothing of what is seen
            counts = dict(db.execute("SELECT state, count(*) FROM item GROUP BY state").fetchall())
            refused = db.execute(_REFUSED).fetchall()
            found = streams(db)
            db.execute("COMMIT")
        except (sqlite3.Error, ValueError) as error:
            raise schema.unusable(path, error) from None
    items = {name: counts.get(name, 0) for name in STATES}
    return ClientHistory(client, items, dict(refused), found)


def streams(db: sqlite3.Connection) -> tuple[LearningStream, ...]:
    """Batches and what was measured after them, by run and kind; the one that goes on comes last.

    Args:
        db: An open inbox.
    """
    batches = [_batch(row) for row in db.execute(_BATCHES).fetchall()]
    rows = db.execute(_MEASURES).fetchall()
    after: dict[int, list[tuple[Any, ...]]] = {}
    for row in rows:
        after.setdefault(row[0], []).append(row)
    new = _new(batches)
    of: dict[tuple[str, RowKind], list[BatchRecord]] = {}
    for batch in batches:
        of.setdefault((batch.run, batch.kind), []).append(batch)
    found = (
        LearningStream(run, kind, tuple(own), _measures(own, after, new))
        for (run, kind), own in of.items()
    )
    return tuple(sorted(found, key=lambda stream: stream.batches[-1].number))


def _new(batches: Sequence[BatchRecord]) -> dict[int, set[str]]:
    """By accepted batch: what was learned for the first time, of the items of its kind.

    What the gate measured before such a batch can be compared with what was measured after it:
    neither the new items nor the anchors had others of an earlier batch among them.
    """
    known: dict[RowKind, set[str]] = {}
    found = {}
    for batch in batches:
        if batch.accepted:
            before = known.setdefault(batch.kind, set())
            found[batch.number] = {batch.task} - before | (set() if before else {OWN})
            before.add(batch.task)
    return found


def _measures(
    batches: Sequence[BatchRecord],
    after: Mapping[int, Sequence[tuple[Any, ...]]],
    new: Mapping[int, set[str]],
) -> tuple[TaskMeasurement, ...]:
    """What was measured after each batch, and before those that brought something new.

    Before a task's first batch stands for after the batch before it, R[j − 1][j], and before a
    client's first batch for before the stream.
    """
    found: list[TaskMeasurement] = []
    last, learned = BEFORE, OWN
    for batch in (each for each in batches if each.accepted):
        rows = [
            TaskMeasurement(number, batch.task, *rest)
            for number, *rest in after.get(batch.number, ())
        ]
        counted = {measure.task: measure.examples for measure in rows}
        for task, name in ((OWN, "anchor_before"), (batch.task, "new_before")):
            loss = batch.figure(name)
            if task in new[batch.number] and task in counted and loss is not None:
                accuracy = batch.figure(name, "accuracy")
                found.append(TaskMeasurement(last, learned, task, loss, accuracy, counted[task]))
        found += rows
        last, learned = batch.number, batch.task
    return tuple(found)


def _batch(row: tuple[Any, ...]) -> BatchRecord:
    return BatchRecord(*(*row[:-1], json.loads(row[-1])))


_BATCHES = (
    "SELECT id, run, version, kind, task, at, items, held, steps, seconds, verdict, reason, figures"
    " FROM batch ORDER BY id"
)
_MEASURES = "SELECT batch, task, loss, accuracy, examples FROM measure ORDER BY batch, task"
_REFUSED = (
    "SELECT reason, count(*) FROM item WHERE state = 'rejected' AND batch IS NULL"
    " GROUP BY reason ORDER BY count(*) DESC, reason"
)

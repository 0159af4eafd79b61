"""History of a client's inbox: every batch with its verdict, and the streams that they form.

Read by `fccl evaluate --incremental` and for heartbeats; writes nothing. Figures only: items are
counted, never read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.protocol.fields import RowKind
from worker.incremental.inbox import schema
from worker.incremental.inbox.schema import InboxFile
from worker.incremental.report.stream import BEFORE, OWN, TaskMeasurement


@dataclass(frozen=True)
class BatchRecord:
    """Record of an attempt to learn a batch of items; a row of table `batch`."""

    number: int  # id in the inbox; 0 until it is stored
    run: str
    version: int  # global version on top of which it was learned
    kind: RowKind
    task: str
    at: float
    items: int
    held: int  # number of items that were held out
    steps: int
    seconds: float
    verdict: str
    reason: str  # of a rejection; never user text, since other machines show it
    figures: Mapping[str, Any]  # `GateFigures`, as JSON

    @property
    def accepted(self) -> bool:
        return self.verdict == "accepted"

    def figure(self, name: str, part: str = "loss") -> float | None:
        """Return a part of a measurement; None if it is missing or not finite."""
        found = self.figures.get(name)
        value = found.get(part) if isinstance(found, Mapping) else None
        return None if value is None or not math.isfinite(value) else float(value)


@dataclass(frozen=True)
class LearningStream:
    """Batches of one run and one kind of rows, whose losses can be compared."""

    run: str
    kind: RowKind
    batches: tuple[BatchRecord, ...]
    measurements: tuple[TaskMeasurement, ...]


@dataclass(frozen=True)
class ClientHistory:
    """History of one client's inbox."""

    client: str
    items: Mapping[str, int]  # number in each state
    refused: Mapping[str, int]  # number from which no batch could be made, by reason
    streams: tuple[LearningStream, ...]  # the oldest first

    @property
    def batches(self) -> int:
        return sum(len(stream.batches) for stream in self.streams)


def clients(state: Path) -> tuple[str, ...]:
    """Return the names of the clients that have an inbox here, sorted."""
    return tuple(sorted(path.parent.name for path in (state / "inbox").glob(f"*/{schema.FILE}")))


def read(state: Path, client: str) -> ClientHistory:
    """Return the history of a client that has an inbox, consistent as of one moment."""
    path = schema.inbox_path(state, client)
    with closing(InboxFile(path)) as file:
        try:
            file.query("BEGIN")  # one snapshot, whatever a worker writes meanwhile
            refused = dict(file.query(_REFUSED))
            return ClientHistory(client, file.item_counts(), refused, streams(file))
        except ValueError as error:
            raise schema.translate(path, error) from None


def streams(file: InboxFile) -> tuple[LearningStream, ...]:
    """Return the batches and their measurements by run and kind; the latest stream comes last."""
    batches = [BatchRecord(*(*row[:-1], json.loads(row[-1]))) for row in file.query(_BATCHES)]
    after: dict[int, list[tuple[Any, ...]]] = {}
    for row in file.query(_MEASURES):
        after.setdefault(row[0], []).append(row)
    new = _new_tasks(batches)
    grouped: dict[tuple[str, RowKind], list[BatchRecord]] = {}
    for batch in batches:
        grouped.setdefault((batch.run, batch.kind), []).append(batch)
    found = (
        LearningStream(run, kind, tuple(own), _measurements(own, after, new))
        for (run, kind), own in grouped.items()
    )
    return tuple(sorted(found, key=lambda stream: stream.batches[-1].number))


def _new_tasks(batches: Sequence[BatchRecord]) -> dict[int, set[str]]:
    """Return, for each accepted batch, the tasks that it was the first of its kind to learn.

    What the gate measured before such a batch is comparable with what was measured after it, since
    neither the new items nor the anchors contained items of an earlier batch.
    """
    known: dict[RowKind, set[str]] = {}
    found = {}
    for batch in batches:
        if batch.accepted:
            before = known.setdefault(batch.kind, set())
            found[batch.number] = {batch.task} - before | (set() if before else {OWN})
            before.add(batch.task)
    return found


def _measurements(
    batches: Sequence[BatchRecord],
    after: Mapping[int, Sequence[tuple[Any, ...]]],
    new: Mapping[int, set[str]],
) -> tuple[TaskMeasurement, ...]:
    """Return the measurements after each batch, and those before a batch with a new task.

    The measurement before a task's first batch stands for the one after the batch before it,
    R[j − 1][j]; the one before a client's first batch stands for the model before the stream.
    """
    found: list[TaskMeasurement] = []
    last, learned = BEFORE, OWN
    for batch in (each for each in batches if each.accepted):
        rows = [
            TaskMeasurement(number, batch.task, *rest)
            for number, *rest in after.get(batch.number, ())
        ]
        counted = {each.task: each.examples for each in rows}
        for task, name in ((OWN, "anchor_before"), (batch.task, "new_before")):
            loss = batch.figure(name)
            if task in new[batch.number] and task in counted and loss is not None:
                accuracy = batch.figure(name, "accuracy")
                found.append(TaskMeasurement(last, learned, task, loss, accuracy, counted[task]))
        found += rows
        last, learned = batch.number, batch.task
    return tuple(found)


_BATCHES = (
    "SELECT id, run, version, kind, task, at, items, held, steps, seconds, verdict, reason, figures"
    " FROM batch ORDER BY id"
)
_MEASURES = "SELECT batch, task, loss, accuracy, examples FROM measure ORDER BY batch, task"
_REFUSED = (
    "SELECT reason, count(*) FROM item WHERE state = 'rejected' AND batch IS NULL"
    " GROUP BY reason ORDER BY count(*) DESC, reason"
)

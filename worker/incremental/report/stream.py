"""Forgetting and transfer over a stream of tasks. Pure.

R[i][j] is the performance on task j after task i was learned (Lopez-Paz & Ranzato, 2017, GEM). The
client's own data, '', is the first task: the federation taught it before the stream began, and its
row is the model as it was then. A task that comes again takes its place at the last time that it
was learned, so that what it gained from its own later items does not count as transfer. With K the
last task:

    forgetting         mean over j < K of max over i < K of R[i][j] − R[K][j]
    backward transfer  mean over j < K of R[K][j] − R[j][j]
    forward transfer   mean over the stream's tasks j but the first of R[j − 1][j] − R[''][j]

Sources: Chaudhry et al., 2018, definition 2; GEM, equations 2 and 3, where R[''] replaces the model
that has learned nothing. R is accuracy or, where there is none, loss with its sign reversed, so
that forgetting is always bad and transfer always good. Missing measurements are left out of the
means.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

OWN = ""
"""Task of the client's own data."""
BEFORE = 0
"""Number of the batch that stands for the model before the stream."""

Metric = Literal["accuracy", "loss"]
MatrixRow = tuple[float | None, ...]


@dataclass(frozen=True)
class TaskMeasurement:
    """Performance of the client's model on one task at one point of the stream."""

    batch: int  # after which it was measured; `BEFORE` for the model before the stream
    learned: str  # task of that batch; `OWN` before the stream
    task: str  # that was measured
    loss: float  # in nats
    accuracy: float | None  # None where there is no right or wrong
    examples: int


@dataclass(frozen=True)
class TaskSpan:
    """Task of the stream, with the first and the last batch that learned it."""

    task: str
    first: int
    last: int


@dataclass(frozen=True)
class StreamFigures:
    """Forgetting and transfer of a stream; None where nothing was measured."""

    metric: Metric
    tasks: tuple[TaskSpan, ...]  # as last learned; the client's own data first
    matrix: tuple[MatrixRow, ...]  # R, with a row and a column for each task
    forgotten: MatrixRow  # forgetting by task; None for the last one
    transferred: MatrixRow  # backward transfer by task; None for the last one
    forgetting: float | None
    backward_transfer: float | None
    forward_transfer: float | None


def stream_figures(measurements: Sequence[TaskMeasurement]) -> StreamFigures:
    """Return the figures of measurements of one run and one kind of rows, in any order."""
    metric = metric_of(measurements)
    tasks = _tasks(measurements)
    known = {(m.batch, m.task): _value(m, metric) for m in measurements}
    matrix = tuple(tuple(known.get((row.last, col.task)) for col in tasks) for row in tasks)
    sign = 1.0 if metric == "accuracy" else -1.0
    forgotten = tuple(_forgotten(matrix, j, sign) for j in range(len(tasks)))
    transferred = tuple(_transferred(matrix, j, sign) for j in range(len(tasks)))
    return StreamFigures(
        metric=metric,
        tasks=tasks,
        matrix=matrix,
        forgotten=forgotten,
        transferred=transferred,
        forgetting=_mean(forgotten),
        backward_transfer=_mean(transferred),
        forward_transfer=_mean(_forward(tasks, matrix, sign)),
    )


def metric_of(measurements: Iterable[TaskMeasurement]) -> Metric:
    """Return accuracy if every measurement has it, else loss."""
    known = [each.accuracy is not None for each in measurements]
    return "accuracy" if known and all(known) else "loss"


def performance_over_time(
    measurements: Iterable[TaskMeasurement],
) -> dict[str, list[tuple[int, float]]]:
    """Return (batch, performance) pairs of each task, in the order of the batches."""
    ordered = sorted(measurements, key=lambda each: each.batch)
    metric = metric_of(ordered)
    points: dict[str, list[tuple[int, float]]] = {}
    for each in ordered:
        points.setdefault(each.task, []).append((each.batch, _value(each, metric)))
    return points


def _value(measured: TaskMeasurement, metric: Metric) -> float:
    if metric == "loss" or measured.accuracy is None:
        return measured.loss
    return measured.accuracy


def _tasks(measurements: Sequence[TaskMeasurement]) -> tuple[TaskSpan, ...]:
    batches: dict[str, set[int]] = {}
    for measurement in measurements:
        if OWN in (measurement.learned, measurement.task):
            batches.setdefault(OWN, {BEFORE})
        if measurement.learned != OWN:
            batches.setdefault(measurement.learned, set()).add(measurement.batch)
    found = (TaskSpan(task, min(numbers), max(numbers)) for task, numbers in batches.items())
    return tuple(sorted(found, key=lambda each: each.last))


def _forgotten(matrix: Sequence[MatrixRow], j: int, sign: float) -> float | None:
    *earlier, last = (row[j] for row in matrix)
    best = [sign * value for value in earlier if value is not None]
    if j == len(matrix) - 1 or last is None or not best:
        return None
    return max(best) - sign * last


def _transferred(matrix: Sequence[MatrixRow], j: int, sign: float) -> float | None:
    learned, last = matrix[j][j], matrix[-1][j]
    if j == len(matrix) - 1 or learned is None or last is None:
        return None
    return sign * (last - learned)


def _forward(tasks: Sequence[TaskSpan], matrix: Sequence[MatrixRow], sign: float) -> MatrixRow:
    if not tasks or tasks[0].task != OWN:
        return ()
    pairs = ((matrix[0][j], matrix[j - 1][j]) for j in range(2, len(tasks)))
    return tuple(
        None if before is None or then is None else sign * (then - before) for before, then in pairs
    )


def _mean(values: MatrixRow) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None

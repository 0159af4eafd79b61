"""How a stream of tasks was learned: what was forgotten, and what later tasks gave to earlier ones.

R[i][j] is the performance on task j once task i was learned (Lopez-Paz & Ranzato, 2017, GEM). The
client's own data, '', is the first task: the federation taught it before the stream began, and its
row is the model as it was then. A task that comes again is where it was learned last, so that what
it gained from its own later items is no transfer from others. With K the last task:

    forgetting         mean over j < K of max over i < K of R[i][j] − R[K][j]
    backward transfer  mean over j < K of R[K][j] − R[j][j]
    forward transfer   mean over the stream's tasks j but the first of R[j − 1][j] − R[''][j]

(Chaudhry et al., 2018, definition 2; GEM, equations 2 and 3, where R[''] stands in for a model that
has learned nothing.) Of accuracy, or where there is none, of loss with the sign turned: forgetting
is always bad, and transfer always good. What was not measured is left out of the means. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

OWN = ""
"""The task of the client's own data."""
BEFORE = 0
"""The batch that stands for the model before the stream."""

Metric = Literal["accuracy", "loss"]
MatrixRow = tuple[float | None, ...]


@dataclass(frozen=True)
class TaskMeasurement:
    """One measurement.

    Attributes:
        batch: After which; `BEFORE` for the model before the stream.
        learned: The task of that batch; `OWN` before the stream.
        task: What was measured.
        loss: In nats.
        accuracy: None where there is no right or wrong.
        examples: How many it was measured on.
    """

    batch: int
    learned: str
    task: str
    loss: float
    accuracy: float | None
    examples: int


@dataclass(frozen=True)
class TaskSpan:
    """A task of the stream, and the first and the last batch that learned it."""

    task: str
    first: int
    last: int


@dataclass(frozen=True)
class StreamFigures:
    """A stream in figures.

    Attributes:
        metric: Of what the figures are.
        tasks: In the order in which they were learned last; the own data first.
        matrix: R, a row and a column for each of them; None where nothing was measured.
        forgotten: By task; None for the last one, and where it is not known.
        transferred: Backward, likewise.
        forgetting: The mean of `forgotten`.
        backward_transfer: The mean of `transferred`.
        forward_transfer: None unless later tasks were measured before the stream.
    """

    metric: Metric
    tasks: tuple[TaskSpan, ...]
    matrix: tuple[MatrixRow, ...]
    forgotten: MatrixRow
    transferred: MatrixRow
    forgetting: float | None
    backward_transfer: float | None
    forward_transfer: float | None


def stream_figures(measures: Sequence[TaskMeasurement]) -> StreamFigures:
    """The figures of one stream: measures of one run and one kind of rows, in any order."""
    metric = metric_of(measures)
    tasks = _tasks(measures)
    known = {(m.batch, m.task): _value(m, metric) for m in measures}
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


def metric_of(measures: Iterable[TaskMeasurement]) -> Metric:
    """Accuracy where every measurement has it."""
    known = [measure.accuracy is not None for measure in measures]
    return "accuracy" if known and all(known) else "loss"


def performance_over_time(
    measures: Iterable[TaskMeasurement],
) -> dict[str, list[tuple[int, float]]]:
    """(batch, performance) of each task over time, in the stream's own metric."""
    ordered = sorted(measures, key=lambda measure: measure.batch)
    metric = metric_of(ordered)
    found: dict[str, list[tuple[int, float]]] = {}
    for measure in ordered:
        found.setdefault(measure.task, []).append((measure.batch, _value(measure, metric)))
    return found


def _value(measure: TaskMeasurement, metric: Metric) -> float:
    return measure.loss if metric == "loss" or measure.accuracy is None else measure.accuracy


def _tasks(measures: Sequence[TaskMeasurement]) -> tuple[TaskSpan, ...]:
    batches: dict[str, set[int]] = {}
    for measure in measures:
        if OWN in (measure.learned, measure.task):
            batches.setdefault(OWN, {BEFORE})
        if measure.learned != OWN:
            batches.setdefault(measure.learned, set()).add(measure.batch)
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

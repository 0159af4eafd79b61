"""Evaluations of versions as rows for viewers: pooled, by client, and who is missing.

Built from the journal by `coordinator/publish/rows.py` for a live run, and by
`tui/data/recorded_views.py` for a recorded one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

from pydantic import BeforeValidator, Field

from common.evaluation.federated import (
    FederatedEvaluation,
    best_version,
    federated_evaluations,
)
from common.evaluation.metric_info import MAIN_METRIC, MetricInfo
from common.protocol.fields import (
    Count,
    Identifier,
    PhaseIndex,
    Record,
    RowKind,
    Seconds,
    list_to_tuple,
)
from common.run_directory.records import EvaluationRecord, RoundRecord

Number = Annotated[float, Field(allow_inf_nan=False)]
Values = dict[Identifier, Number]
"""Metrics by key; `common.evaluation.metric_info` names them."""


class ClientEvaluation(Record):
    """Figures of a version on one client's validation rows."""

    client_id: Identifier
    rows: Count
    values: Values


class EvaluationRow(Record):
    """Evaluation of one version by the clients that answered, with the objective of one phase.

    Attributes:
        at: Time of the newest answer, or that at which the evaluation became due.
        rows: Rows of all clients that answered.
        values: Pooled metrics.
        clients: The clients that answered, by id.
        missing: Clients that had taken part by then, and have not answered.
        open: Whether answers are still awaited.
        best: Whether the version is the best of those that were evaluated with this phase.
        worst, worst_value: The client with the worst main metric.
        range: Greatest minus smallest value of the main metric over clients.
        deviation: Its standard deviation over clients, each counting the same.
        seconds: Computing time of all clients together.
    """

    version: Count
    phase: PhaseIndex
    kind: RowKind
    at: Seconds
    rows: Count = 0
    values: Values = Field(default_factory=dict)
    clients: Annotated[tuple[ClientEvaluation, ...], BeforeValidator(list_to_tuple)] = ()
    missing: Annotated[tuple[Identifier, ...], BeforeValidator(list_to_tuple)] = ()
    open: bool = False
    best: bool = False
    worst: Identifier | None = None
    worst_value: Number | None = None
    range: Number | None = None
    deviation: Number | None = None
    seconds: Seconds = 0.0

    @property
    def metric(self) -> MetricInfo:
        """The metric by which clients and versions are compared."""
        return MAIN_METRIC[self.kind]

    @property
    def value(self) -> float | None:
        """The pooled main metric; None without answers."""
        return self.values.get(self.metric.key)

    def client_value(self, client: str) -> float | None:
        """Return the main metric of one client; None if it has not answered."""
        found = next((each for each in self.clients if each.client_id == client), None)
        return found.values.get(self.metric.key) if found else None


def evaluation_rows(
    records: Sequence[EvaluationRecord], rounds: Iterable[RoundRecord], kinds: Sequence[RowKind]
) -> tuple[EvaluationRow, ...]:
    """Return a row for each evaluation of a version, by phase and version.

    Args:
        records: Accepted answers.
        rounds: Evaluations that became due; an older journal may lack those of its answers.
        kinds: Kind of the rows of each phase of the plan.
    """
    evaluations = federated_evaluations(records)
    best = {phase: best_version(evaluations, phase) for phase in {e.phase for e in evaluations}}
    by_key = {(each.phase, each.version): each for each in evaluations}
    due = {(each.phase, each.version): each for each in rounds}
    own: dict[tuple[int, int], list[EvaluationRecord]] = {}
    for record in records:
        own.setdefault((record.phase, record.version), []).append(record)
    return tuple(
        _row(key, by_key.get(key), due.get(key), own.get(key, ()), kinds[key[0]], best)
        for key in sorted(by_key.keys() | due.keys())
    )


def _row(
    key: tuple[int, int],
    evaluation: FederatedEvaluation | None,
    due: RoundRecord | None,
    records: Sequence[EvaluationRecord],
    kind: RowKind,
    best: Mapping[int, int | None],
) -> EvaluationRow:
    phase, version = key
    answered = set(evaluation.sums) if evaluation else set()
    row = EvaluationRow(
        version=version,
        phase=phase,
        kind=kind,
        at=max((each.at for each in records), default=due.at if due else 0.0),
        missing=tuple(sorted(set(due.expected) - answered)) if due else (),
        open=due is not None and due.closed_at is None,
        seconds=sum(each.seconds for each in records),
    )
    return row if evaluation is None else row.model_copy(update=_figures(evaluation, best))


def _figures(evaluation: FederatedEvaluation, best: Mapping[int, int | None]) -> dict[str, object]:
    spread = evaluation.spread()
    figures: dict[str, object] = {
        "rows": evaluation.pooled.rows,
        "values": _finite(evaluation.values()),
        "clients": tuple(
            ClientEvaluation(
                client_id=client, rows=evaluation.sums[client].rows, values=_finite(values)
            )
            for client, values in evaluation.client_values().items()
        ),
        "best": best[evaluation.phase] == evaluation.version,
    }
    if spread is not None:
        figures |= {"worst": spread.worst, "worst_value": spread.worst_value}
        figures |= {"range": spread.range, "deviation": spread.deviation}
    return figures


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    """Leave out what JSON cannot hold, as the perplexity of a model that diverged."""
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}

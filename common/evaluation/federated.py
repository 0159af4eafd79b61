"""Federated evaluation of versions: pooled figures, those of each client, and the best version.

Clients evaluate a version on their own validation rows and send sums; everything here is computed
from the records of their answers (`common/run_directory/records.py: EvaluationRecord`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import pstdev

from common.evaluation.metric_info import MAIN_METRIC, MetricInfo
from common.evaluation.sums import EvaluationSums, metric_values, pool
from common.protocol.fields import RowKind
from common.run_directory.records import EvaluationRecord


@dataclass(frozen=True)
class Spread:
    """Spread of a metric over clients that have a value."""

    clients: int  # number of clients that have a value
    worst: str  # client id; the first by name, of equal ones
    worst_value: float
    range: float  # greatest minus smallest value
    deviation: float  # standard deviation, each client counting the same


def spread_over_clients(metric: MetricInfo, values: Mapping[str, float]) -> Spread | None:
    """Return the spread of a metric over the clients' values; None if there are none."""
    if not values:
        return None
    pick = min if metric.higher else max
    worst = pick(sorted(values), key=values.__getitem__)
    least, greatest = min(values.values()), max(values.values())
    deviation = pstdev(values.values())
    return Spread(len(values), worst, values[worst], greatest - least, deviation)


@dataclass(frozen=True)
class FederatedEvaluation:
    """Evaluation of one version by the clients that answered, with the objective of one phase."""

    version: int
    phase: int
    kind: RowKind
    sums: Mapping[str, EvaluationSums]  # of each client that answered

    @property
    def metric(self) -> MetricInfo:
        """The metric by which clients and versions are compared."""
        return MAIN_METRIC[self.kind]

    @property
    def pooled(self) -> EvaluationSums:
        """Sums over the rows of all clients that answered."""
        return pool(self.sums.values())

    def values(self) -> Mapping[str, float]:
        """Return the pooled metrics by key."""
        return metric_values(self.kind, self.pooled)

    def client_values(self) -> Mapping[str, Mapping[str, float]]:
        """Return the metrics of each client by key."""
        return {name: metric_values(self.kind, sums) for name, sums in self.sums.items()}

    def spread(self) -> Spread | None:
        """Return the spread of the main metric; None if no client has rows."""
        key = self.metric.key
        values = {c: own[key] for c, own in self.client_values().items() if key in own}
        return spread_over_clients(self.metric, values)


def federated_evaluations(records: Iterable[EvaluationRecord]) -> tuple[FederatedEvaluation, ...]:
    """Return the evaluations of a run, by phase and version; a client's last answer counts."""
    found: dict[tuple[int, int], dict[str, EvaluationRecord]] = {}
    for record in records:
        found.setdefault((record.phase, record.version), {})[record.client_id] = record
    return tuple(
        FederatedEvaluation(
            version,
            phase,
            next(iter(answers.values())).kind,
            {client: answers[client].sums for client in sorted(answers)},
        )
        for (phase, version), answers in sorted(found.items())
    )


def best_version(evaluations: Sequence[FederatedEvaluation], phase: int) -> int | None:
    """Return the version that does best with the objective of a phase; None without evaluations.

    Versions are compared by the pooled main metric of the clients that answered for all of them. A
    version that was evaluated by so few clients that no client answered for all is left out, the
    one with the fewest answers first. Of equal versions the earlier one is best.
    """
    compared = [each for each in evaluations if each.phase == phase and each.pooled.rows]
    while compared:
        common = set.intersection(*(_with_rows(each) for each in compared))
        if common:
            return _best(compared, common)
        compared.remove(min(compared, key=lambda each: (len(_with_rows(each)), -each.version)))
    return None


def best_of_run(evaluations: Sequence[FederatedEvaluation]) -> int | None:
    """Return the best version of a run: that of the newest phase with evaluations, if there are."""
    newest = max((each.phase for each in evaluations if each.pooled.rows), default=None)
    return None if newest is None else best_version(evaluations, newest)


def _with_rows(evaluation: FederatedEvaluation) -> set[str]:
    return {client for client, sums in evaluation.sums.items() if sums.rows}


def _best(compared: Sequence[FederatedEvaluation], clients: set[str]) -> int:
    metric = compared[0].metric

    def rank(evaluation: FederatedEvaluation) -> tuple[float, int]:
        sums = pool(evaluation.sums[client] for client in clients)
        value = metric_values(evaluation.kind, sums)[metric.key]
        return (-value if metric.higher else value, evaluation.version)

    return min(compared, key=rank).version

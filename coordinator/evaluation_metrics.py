"""Metrics of evaluations, of clients' contributions and of their privacy, for Prometheus.

Figures of the newest evaluated version of each phase: a label for the version would add time series
for as long as a run lasts. `coordinator/metrics.py` exposes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric

from common.evaluation.rows import EvaluationRow
from common.privacy import NOT_COVERED, PrivacySpending


def contribution_gauges(contributions: Mapping[str, float]) -> Iterator[Metric]:
    gauge = GaugeMetricFamily(
        "fccl_client_contribution",
        "Running contribution of a client; 1: average",
        labels=["client"],
    )
    for client, value in contributions.items():
        gauge.add_metric([client], value)
    yield gauge


def privacy_gauges(privacy: PrivacySpending | None) -> Iterator[Metric]:
    if privacy is None:
        return
    gauge = GaugeMetricFamily(
        "fccl_privacy_epsilon",
        f"Epsilon of the most exposed client; {NOT_COVERED}",
        labels=["when"],
    )
    values = {
        "now": privacy.epsilon,
        "end": privacy.epsilon_at_end,
        "cap": privacy.epsilon_at_cap,
    }
    for when, value in values.items():
        if value is not None:
            gauge.add_metric([when], value)
    yield gauge


def evaluation_gauges(evaluations: Sequence[EvaluationRow]) -> Iterator[Metric]:
    """Yield the figures of evaluations, which are sorted by phase and version."""
    version = _gauge("fccl_evaluated_version", "Newest version that clients evaluated")
    best = _gauge("fccl_best_version", "Best of the versions that clients evaluated")
    clients = _gauge("fccl_evaluation_clients", "Clients that evaluated the newest version")
    pooled = _gauge("fccl_evaluation", "Main metric on the rows of all clients", "metric")
    worst = _gauge("fccl_evaluation_worst", "Main metric of the worst client", "metric", "client")
    spread = _gauge("fccl_evaluation_range", "Main metric, greatest minus least client", "metric")
    for row in evaluations:
        if row.best:
            best.add_metric([str(row.phase)], row.version)
    newest = {row.phase: row for row in evaluations if row.value is not None}
    for row in newest.values():
        phase, metric = str(row.phase), row.metric.key
        version.add_metric([phase], row.version)
        clients.add_metric([phase], len(row.clients))
        pooled.add_metric([phase, metric], row.values[metric])
        if row.worst is not None and row.worst_value is not None and row.range is not None:
            worst.add_metric([phase, metric, row.worst], row.worst_value)
            spread.add_metric([phase, metric], row.range)
    yield from (version, best, clients, pooled, worst, spread)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=("phase", *labels))

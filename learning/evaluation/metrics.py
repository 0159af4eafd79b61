"""Metrics of an evaluation, for reports: what follows from sums over rows, with intervals.

The scores of one pass over many rows serve every set that the rows belong to: the held-out set,
each client, all clients together.

Data path: `learning.evaluation.row_sums` → here → `evaluation.assessment`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from common.evaluation.federated import Spread, spread_over_clients
from common.evaluation.metric_info import MetricInfo
from common.evaluation.sums import EvaluationSums, metric_values
from common.protocol.fields import RowKind

Z = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True)
class EvalMetrics:
    """Metrics of one model on one set of rows; an empty set has no values."""

    rows: int  # number of rows behind each value
    # By key of the metric; also `tokens` and `bytes` of responses.
    # Rewards of good answers are missing where none is good, and so on.
    values: Mapping[str, float] = field(default_factory=dict)
    confusion: tuple[tuple[int, ...], ...] = ()  # rows by true class, then by predicted class

    def interval(self, metric: MetricInfo) -> tuple[float, float] | None:
        """Return the 95 % interval of a share; None for other metrics, or without rows."""
        if not metric.share or not self.rows:
            return None
        return wilson(self.values[metric.key], self.rows)


def wilson(share: float, rows: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a share of independent rows (Wilson 1927).

    Unlike share ± z·√(p(1−p)/n) it stays within [0, 1] and does not collapse at a share of 0 or 1.
    """
    middle = (share + Z**2 / (2 * rows)) / (1 + Z**2 / rows)
    half = Z / (1 + Z**2 / rows) * math.sqrt(share * (1 - share) / rows + Z**2 / (4 * rows**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def make_metrics(kind: RowKind, sums: EvaluationSums) -> EvalMetrics:
    """Return the metrics that follow from the sums over a set of rows."""
    return EvalMetrics(sums.rows, metric_values(kind, sums), sums.confusion)


def client_spread(metric: MetricInfo, metrics: Mapping[str, EvalMetrics]) -> Spread | None:
    """Return the spread of a metric over clients; None if none of them has rows."""
    values = {
        name: one.values[metric.key] for name, one in metrics.items() if metric.key in one.values
    }
    return spread_over_clients(metric, values)

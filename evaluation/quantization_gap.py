"""Cost of quantization: a version's held-out figures on the quantized and the unquantized base.

Adapters are exported for, and merged into, the unquantized base. `evaluation/report/report.py` asks
for the figures, and `evaluation/report/figure_tables.py` presents them.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.evaluation.metric_info import METRICS, MetricInfo
from common.protocol.fields import QuantizationName
from evaluation.assessed import Assessment
from evaluation.evaluator import HELDOUT, EvaluationLimits, Evaluator


@dataclass(frozen=True)
class QuantizationGap:
    """A metric of one version on both bases."""

    quantization: QuantizationName
    metric: MetricInfo
    quantized: float
    unquantized: float


def measure_gap(
    evaluator: Evaluator, assessment: Assessment, limits: EvaluationLimits
) -> QuantizationGap | None:
    """Return the first metric of the run's first kind of rows, on both bases.

    Return None for a run without quantization, or without held-out rows.

    Raises:
        ModelError: The unquantized base cannot be loaded.
    """
    quantization = evaluator.run.config.model.quantization
    found = assessment.kinds[0]
    if quantization == "none" or not found.heldout[-1].rows:
        return None
    metric = METRICS[found.kind][0]
    whole = evaluator.unquantized()
    # The same sample of rows as in the assessment, which the clients' rows have a part in.
    rows = whole.build_set(found.kind, assessment.version, limits).of([HELDOUT])
    whole.load_tensors(whole.run.tensors(rows.reference))
    reference = whole.score(rows)
    whole.load_tensors(whole.run.tensors(assessment.version))
    values = rows.metrics([HELDOUT], whole.score(rows), reference).values
    return QuantizationGap(
        quantization,
        metric,
        quantized=found.heldout[-1].values[metric.key],
        unquantized=values[metric.key],
    )

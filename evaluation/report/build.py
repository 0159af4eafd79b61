"""Report on a version that is evaluated on rows of this machine."""

from __future__ import annotations

from dataclasses import replace

from evaluation.assessment import assess
from evaluation.evaluator import EvaluationLimits, Evaluator
from evaluation.quantization_gap import measure_gap
from evaluation.report.report import Report, report_of
from learning.progress import ProgressCallback, ignore_progress


def build_report(
    evaluator: Evaluator,
    version: int,
    limits: EvaluationLimits,
    on_progress: ProgressCallback = ignore_progress,
) -> Report:
    """Evaluate a version; raises the errors of `evaluation.assessment.assess`."""
    assessment = assess(evaluator, version, limits, on_progress)
    return replace(
        report_of(evaluator.run, assessment),
        autocast=evaluator.compute.autocast,
        gap=measure_gap(evaluator, assessment, limits),
    )

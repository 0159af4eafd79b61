"""Figures of versions on held-out rows, computed beside the virtual time of a run."""

from __future__ import annotations

from common.errors import DataError
from common.evaluation.metric_info import METRICS
from common.evaluation.sums import mean_loss, metric_values
from common.protocol.fields import RowKind
from common.protocol.tensors import Tensors
from common.run_directory.recorded_run import RecordedRun
from evaluation.evaluator import HELDOUT, EvaluationRows, Evaluator, pick_evenly
from learning.evaluation.row_scores import Scores


class HeldoutRows:
    """Measures on the held-out rows of a run, without those on which updates are scored."""

    def __init__(self, run: RecordedRun, evaluator: Evaluator, limit: int) -> None:
        """Create it; `limit` is the number of rows."""
        self._run, self._evaluator, self._limit = run, evaluator, limit
        self._rows: dict[RowKind, EvaluationRows] = {}
        self._references: dict[tuple[RowKind, int], Scores] = {}

    def measure(self, version: int, tensors: Tensors, phase: int) -> tuple[float, dict[str, float]]:
        kind = self._run.config.phase[phase].kind
        rows = self._load(kind)
        self._evaluator.load_tensors(tensors)
        scores = self._evaluator.score(rows)
        reference = self._reference(rows, version, phase, scores)
        sums = rows.scorer.sums(rows.examples, scores, reference)
        loss = mean_loss(kind, sums)
        if loss is None:
            raise DataError(
                f"no held-out row of kind {kind} fits into model.max_length",
                "raise it, or set simulation.measure_every = 0",
            )
        values = metric_values(kind, sums)
        return loss, {info.key: values[info.key] for info in METRICS[kind] if info.key in values}

    def _load(self, kind: RowKind) -> EvaluationRows:
        if kind not in self._rows:
            rows = self._evaluator.heldout_rows(kind, 2**31)
            config = self._run.config
            if config.aggregation.contribution_source == "server":
                scored = self._evaluator.heldout_rows(kind, config.evaluation.max_rows)
                rest = [row for row in rows if row not in scored]
                rows = rest or rows
            chosen = [(HELDOUT, row) for row in pick_evenly(rows, self._limit)]
            self._rows[kind] = self._evaluator.encode(kind, 0, chosen)
        return self._rows[kind]

    def _reference(self, rows: EvaluationRows, version: int, phase: int, scores: Scores) -> Scores:
        """Return the scores of the version with which rewards are compared; it is measured, too."""
        if not rows.has_rewards:
            return scores
        begun = sum(each.versions for each in self._run.config.phase[:phase])
        key = (rows.kind, begun)
        if version <= begun:
            self._references[key] = scores
        return self._references.get(key, scores)

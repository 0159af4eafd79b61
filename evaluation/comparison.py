"""Comparison of two runs on the same rows: the held-out rows of the first.

Each run reads them with its own base model, tokenizer and length. Where the base models differ,
only bits per byte and shares can be compared: tokens, and so perplexity, belong to a tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from common.errors import RunError
from common.protocol.fields import RowKind
from common.run_directory.recorded_run import RecordedRun
from evaluation.evaluator import HELDOUT, EvaluationLimits, EvaluationRows, Evaluator
from learning.evaluation.metrics import EvalMetrics
from learning.progress import ProgressCallback, ignore_progress


@dataclass(frozen=True)
class ComparedVersion:
    """One side of a comparison."""

    name: str  # of the run; its path if both runs have the same name
    base_name: str
    digest: str
    version: int

    @property
    def title(self) -> str:
        return f"{self.name}, version {self.version}"


@dataclass(frozen=True)
class KindComparison:
    """Metrics of both versions on the same rows of one kind."""

    kind: RowKind
    figures: tuple[EvalMetrics, EvalMetrics]
    left_out: int  # rows that do not fit into both models


@dataclass(frozen=True)
class Comparison:
    """Two versions of two runs, with their metrics by kind of rows."""

    sides: tuple[ComparedVersion, ComparedVersion]
    kinds: tuple[KindComparison, ...]

    @property
    def same_base(self) -> bool:
        """Whether both runs have the same base model, and so the same tokenizer."""
        return self.sides[0].digest == self.sides[1].digest


def check_comparable(run: RecordedRun, other: RecordedRun) -> None:
    """Raise `RunError` if two runs learn different kinds of rows or different classes."""
    one, two = run.config.kinds, other.config.kinds
    if set(one) != set(two):
        raise RunError(
            f"{run.directory} learns {_joined(one)}, but {other.directory} learns {_joined(two)}",
            "compare runs that learn the same kinds of rows",
        )
    if set(run.labels) != set(other.labels):
        raise RunError(
            f"{run.directory} and {other.directory} have different classes",
            "compare runs with the same data.labels",
        )


def compare(
    evaluator: Evaluator,
    version: int,
    other: Evaluator,
    other_version: int,
    limits: EvaluationLimits,
    on_progress: ProgressCallback = ignore_progress,
) -> Comparison:
    """Evaluate two versions on the first run's held-out rows.

    Raises:
        RunError: The runs cannot be compared.
        DataError: The first run's prepared rows are gone.
        ModelError: A base model cannot be loaded.
    """
    one, two = evaluator.run, other.run
    check_comparable(one, two)
    pair = ((evaluator, version), (other, other_version))
    found = []
    for done, kind in enumerate(one.config.kinds):
        on_progress(f"comparing both runs on {kind} rows", done / len(one.config.kinds))
        found.append(_compare_kind(kind, pair, limits))
    kinds = tuple(found)
    same_name = one.config.run.name == two.config.run.name
    by_path = same_name and one.directory.resolve() != two.directory.resolve()
    sides = (_side(one, version, by_path=by_path), _side(two, other_version, by_path=by_path))
    return Comparison(sides, kinds)


def _compare_kind(
    kind: RowKind,
    pair: tuple[tuple[Evaluator, int], tuple[Evaluator, int]],
    limits: EvaluationLimits,
) -> KindComparison:
    rows = pair[0][0].heldout_rows(kind, limits.heldout[kind])
    fitting = [
        set(evaluator.encode(kind, version, [(HELDOUT, row) for row in rows]).rows)
        for evaluator, version in pair
    ]
    common = [(HELDOUT, row) for row in rows if row in fitting[0] and row in fitting[1]]
    one, two = (
        _metrics(evaluator, version, evaluator.encode(kind, version, common))
        for evaluator, version in pair
    )
    return KindComparison(kind, (one, two), len(rows) - len(common))


def _metrics(evaluator: Evaluator, version: int, rows: EvaluationRows) -> EvalMetrics:
    evaluator.load_tensors(evaluator.run.tensors(version))
    scores = reference = evaluator.score(rows)
    if rows.has_rewards and rows.reference != version:
        evaluator.load_tensors(evaluator.run.tensors(rows.reference))
        reference = evaluator.score(rows)
    return rows.metrics([HELDOUT], scores, reference)


def _side(run: RecordedRun, version: int, *, by_path: bool) -> ComparedVersion:
    name = str(run.directory) if by_path else run.config.run.name
    return ComparedVersion(name, run.base.name, run.base.digest, version)


def _joined(kinds: Iterable[RowKind]) -> str:
    return " and ".join(sorted(kinds))

"""Two runs side by side, on the same rows.

The rows are the first run's held-out ones. They are read with each run's own base model, tokenizer
and length; where the models differ, only bits per byte and shares can be compared, since tokens and
their perplexity are each tokenizer's own.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import RunError
from common.protocol.fields import RowKind
from evaluation.assessment import kinds
from evaluation.evaluator import HELDOUT, EvaluationLimits, Evaluator
from evaluation.opening import Opened
from learning.evaluation.metrics import EvalMetrics
from learning.training.device import Compute


@dataclass(frozen=True)
class ComparedVersion:
    """One of the two."""

    name: str
    base_name: str
    digest: str
    version: int

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.name}, version {self.version}"


@dataclass(frozen=True)
class KindComparison:
    """Figures of both on the same rows; `left_out` fit into one of the models only."""

    kind: RowKind
    figures: tuple[EvalMetrics, EvalMetrics]
    left_out: int


@dataclass(frozen=True)
class Comparison:
    """Both runs, and their figures by kind."""

    sides: tuple[ComparedVersion, ComparedVersion]
    kinds: tuple[KindComparison, ...]

    @property
    def same_base(self) -> bool:
        """Whether tokens of the one are tokens of the other."""
        return self.sides[0].digest == self.sides[1].digest


def check_comparable(run: Opened, other: Opened) -> None:
    """Refuse to compare what learned different things.

    Raises:
        RunError: The plans differ in kind, or the classes do.
    """
    one, two = set(kinds(run.phases)), set(kinds(other.phases))
    if one != two:
        raise RunError(
            f"{run.directory} learns {_listed(one)}, {other.directory} {_listed(two)}",
            "compare runs that learn the same",
        )
    if set(run.labels) != set(other.labels):
        raise RunError(
            f"{run.directory} and {other.directory} have different classes",
            "compare runs with the same data.labels",
        )


def compare(
    run: Opened,
    version: int,
    other: Opened,
    version2: int,
    compute: Compute,
    sizes: EvaluationLimits,
) -> Comparison:
    """Evaluate two versions on the first run's held-out rows.

    Raises:
        RunError: The runs cannot be compared.
        DataError: The first run's prepared rows are gone.
        ModelError: A base model cannot be loaded.
    """
    check_comparable(run, other)
    sides = ((run, version), (other, version2))
    benches = (Evaluator(run, compute), Evaluator(other, compute))
    found = tuple(_compared(kind, sides, benches, sizes) for kind in kinds(run.phases))
    same = run.name == other.name and run.directory.resolve() != other.directory.resolve()
    left, right = (_side(*side, by_place=same) for side in sides)
    return Comparison((left, right), found)


def _compared(
    kind: RowKind,
    sides: tuple[tuple[Opened, int], tuple[Opened, int]],
    benches: tuple[Evaluator, Evaluator],
    sizes: EvaluationLimits,
) -> KindComparison:
    rows = benches[0].heldout(kind, sizes.heldout[kind])
    fit = [
        set(bench.encode(kind, version, [(HELDOUT, row) for row in rows]).rows)
        for bench, (_, version) in zip(benches, sides, strict=True)
    ]
    common = [row for row in rows if row in fit[0] and row in fit[1]]
    figures = []
    for bench, (run, version) in zip(benches, sides, strict=True):
        exam = bench.encode(kind, version, [(HELDOUT, row) for row in common])
        bench.become(run.tensors(version))
        scores = bench.score(exam)
        reference = scores
        if kind == "va" and exam.reference != version:
            bench.become(run.tensors(exam.reference))
            reference = bench.score(exam)
        figures.append(exam.figures([HELDOUT], scores, reference))
    return KindComparison(kind, (figures[0], figures[1]), len(rows) - len(common))


def _side(run: Opened, version: int, *, by_place: bool) -> ComparedVersion:
    """A side; two runs of one name are told apart by where they lie."""
    base = run.base
    name = str(run.directory) if by_place else run.name
    return ComparedVersion(name, base.name, base.digest, version)


def _listed(found: set[RowKind]) -> str:
    return " and ".join(sorted(found))

"""How good a version is: beside the base and the end of each phase before it, on unseen rows.

One attached model takes the tensors of one subject after another, and every row passes through it
once per subject. What comes out is a value; `evaluation.report.report` adds how the run went, and
`evaluation.report.files` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from common.config.config import PhaseConfig
from common.protocol.fields import RowKind
from evaluation.evaluator import HELDOUT, EvaluationLimits, EvaluationSet, Evaluator
from evaluation.opening import Opened
from evaluation.prompts import expected_answer, printable_line, prompt, question
from learning.data.row_types import Row
from learning.evaluation.inference import unigram_entropy
from learning.evaluation.metrics import EvalMetrics
from learning.evaluation.row_scores import Scores
from learning.objectives.tokens import TokenisedExample
from learning.training.device import Compute


@dataclass(frozen=True)
class EvaluatedVersion:
    """A version that is evaluated, and what it is called."""

    version: int
    title: str


@dataclass(frozen=True)
class KindAssessment:
    """Figures on one kind of rows. Figures stand in the order of the subjects.

    Attributes:
        kind: Of the rows.
        heldout: On rows that no client has.
        pooled: On all clients' validation rows together.
        clients: On each client's own.
        unigram: sft: nats per token of the held-out responses under their own unigram distribution:
            what a model must beat to have read anything.
        reference: va: the version that rewards compare with.
        beta: va: β of the rewards.
    """

    kind: RowKind
    heldout: tuple[EvalMetrics, ...]
    pooled: tuple[EvalMetrics, ...]
    clients: Mapping[str, tuple[EvalMetrics, ...]]
    unigram: float | None = None
    reference: int | None = None
    beta: float | None = None


@dataclass(frozen=True)
class AnsweredRow:
    """A held-out row, and what each subject says of it, each in one line of printable text."""

    asked: str
    expected: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Assessment:
    """What is known of a version.

    Attributes:
        version: The evaluated one, the last of the subjects.
        subjects: Oldest first.
        kinds: In the order in which the plan learns them.
        samples: From the first kind that has text to show.
        labels: The class names, where the run classifies.
    """

    version: int
    subjects: tuple[EvaluatedVersion, ...]
    kinds: tuple[KindAssessment, ...]
    samples: tuple[AnsweredRow, ...]
    labels: tuple[str, ...]


def assess(run: Opened, version: int, compute: Compute, sizes: EvaluationLimits) -> Assessment:
    """Evaluate a version that is on the disk.

    Raises:
        DataError: The prepared rows are gone.
        ModelError: The base model cannot be loaded.
        RunError: A version that is needed is not there.
    """
    newest = run.tensors(version)  # first: a running coordinator may remove it soon
    bench = Evaluator(run, compute)
    exams = [bench.exam(kind, version, sizes) for kind in kinds(run.phases)]
    rows = _rows(exams, sizes.samples)
    subjects = versions_to_evaluate(run.phases, version)
    scores: dict[int, list[Scores]] = {}
    answers: list[Sequence[str]] = []
    for subject in subjects:
        bench.become(newest if subject.version == version else run.tensors(subject.version))
        scores[subject.version] = [bench.score(exam) for exam in exams]
        answers.append(bench.generate([prompt(row) for row in rows], sizes.new_tokens))
    by_exam = [[scores[subject.version][i] for subject in subjects] for i in range(len(exams))]
    return Assessment(
        version=version,
        subjects=subjects,
        kinds=tuple(
            _assessed(exam, by_exam[i], scores[exam.reference][i]) for i, exam in enumerate(exams)
        ),
        samples=(
            *_answered(rows, answers),
            *_classified(exams, by_exam, sizes.samples, run.labels),
        ),
        labels=run.labels,
    )


def kinds(phases: Sequence[PhaseConfig]) -> tuple[RowKind, ...]:
    """The kinds of rows that a plan learns from, in its order."""
    return tuple(dict.fromkeys(phase.kind for phase in phases))


def versions_to_evaluate(
    phases: Sequence[PhaseConfig], version: int
) -> tuple[EvaluatedVersion, ...]:
    """The base, the end of each phase before a version, and the version."""
    found = [EvaluatedVersion(0, "base")]
    end = 0
    for phase in phases:
        end += phase.versions
        if end < version:
            found.append(EvaluatedVersion(end, f"version {end} (after {phase.objective})"))
    return (*found, EvaluatedVersion(version, f"version {version}")) if version else tuple(found)


def _assessed(exam: EvaluationSet, scores: Sequence[Scores], reference: Scores) -> KindAssessment:
    def by_subject(owners: Sequence[str]) -> tuple[EvalMetrics, ...]:
        return tuple(exam.figures(owners, one, reference) for one in scores)

    heldout = [cast(TokenisedExample, exam.examples[i]) for i in exam.places([HELDOUT])]
    return KindAssessment(
        kind=exam.kind,
        heldout=by_subject([HELDOUT]),
        pooled=by_subject(exam.clients),
        clients={name: by_subject([name]) for name in exam.clients},
        unigram=unigram_entropy(heldout) if exam.kind == "sft" and heldout else None,
        reference=exam.reference if exam.kind == "va" else None,
        beta=exam.beta,
    )


def _rows(exams: Sequence[EvaluationSet], count: int) -> list[Row]:
    """Held-out rows to answer: instructions, else preferences; of classes there are none."""
    for kind in ("sft", "va"):
        for exam in exams:
            if exam.kind == kind and (places := exam.spread(count)):
                return [exam.rows[i] for i in places]
    return []


def _answered(rows: Sequence[Row], answers: Sequence[Sequence[str]]) -> list[AnsweredRow]:
    return [
        AnsweredRow(
            printable_line(question(row)),
            printable_line(expected_answer(row)),
            tuple(printable_line(each[i]) for each in answers),
        )
        for i, row in enumerate(rows)
    ]


def _classified(
    exams: Sequence[EvaluationSet],
    scores: Sequence[Sequence[Scores]],
    count: int,
    labels: Sequence[str],
) -> list[AnsweredRow]:
    """Held-out texts with the class that each subject gives them."""
    found = []
    for exam, by_subject in zip(exams, scores, strict=True):
        for i in exam.spread(count) if exam.kind == "cls" else ():
            row = exam.rows[i]
            answers = tuple(printable_line(labels[one[i][1]]) for one in by_subject)
            found.append(
                AnsweredRow(
                    printable_line(question(row)), printable_line(expected_answer(row)), answers
                )
            )
    return found

"""Assessment of a version on rows that no task has trained on.

It is compared with version 0 (the base, or the adapter with which the run began) and with the end
of each phase before it. One model loads the tensors of one version after another, and scores every
row once per version.
`evaluation/report/report.py` adds the history of the run; `evaluation/report/files.py` writes both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from common.memory import release_free_memory
from evaluation.assessed import (
    AnsweredRow,
    Assessment,
    KindAssessment,
    choose_versions,
    first_title,
    recorded_answers,
)
from evaluation.evaluator import HELDOUT, EvaluationLimits, EvaluationRows, Evaluator
from evaluation.prompts import expected_answer, format_line, format_question
from learning.data.row_types import Row
from learning.evaluation.inference import unigram_entropy
from learning.evaluation.metrics import EvalMetrics
from learning.evaluation.row_scores import Scores
from learning.objectives.tokens import TokenisedExample
from learning.progress import ProgressCallback, ignore_progress


def assess(
    evaluator: Evaluator,
    version: int,
    limits: EvaluationLimits,
    on_progress: ProgressCallback = ignore_progress,
) -> Assessment:
    """Evaluate a version.

    Raises:
        DataError: The prepared rows are gone.
        ModelError: The base model cannot be loaded.
        RunError: A version that is needed is not on the disk.
    """
    run = evaluator.run
    newest = run.tensors(version)  # first: a running coordinator may remove it soon
    sets = [evaluator.build_set(kind, version, limits) for kind in run.config.kinds]
    subjects = choose_versions(run.config.phase, version, first_title(run))
    recorded = recorded_answers(run, subjects, limits.samples) if limits.recorded else ()
    rows = [] if recorded else _rows_to_answer(sets, limits.samples)
    progress = _RowProgress(on_progress, len(subjects), sum(len(each.rows) for each in sets))
    scores: dict[int, list[Scores]] = {}
    answers: list[Sequence[str]] = []
    for subject in subjects:
        tensors = newest if subject.version == version else run.tensors(subject.version)
        evaluator.load_tensors(tensors)
        on_rows = progress.begin(subject.version)
        scores[subject.version] = [evaluator.score(each, on_rows) for each in sets]
        answers.append(evaluator.generate(rows, limits.new_tokens))
        release_free_memory()
    by_set = [[scores[subject.version][i] for subject in subjects] for i in range(len(sets))]
    return Assessment(
        version=version,
        subjects=subjects,
        kinds=tuple(
            _assess_kind(each, by_set[i], scores[each.reference][i]) for i, each in enumerate(sets)
        ),
        samples=(
            *recorded,
            *(_answered_row(row, [each[i] for each in answers]) for i, row in enumerate(rows)),
            *_classified_rows(sets, by_set, limits.samples, run.labels),
        ),
        labels=run.labels,
    )


def _assess_kind(
    rows: EvaluationRows, scores: Sequence[Scores], reference: Scores
) -> KindAssessment:
    def by_version(owners: Sequence[str]) -> tuple[EvalMetrics, ...]:
        return tuple(rows.metrics(owners, one, reference) for one in scores)

    heldout = [cast(TokenisedExample, rows.examples[i]) for i in rows.indexes([HELDOUT])]
    return KindAssessment(
        kind=rows.kind,
        heldout=by_version([HELDOUT]),
        pooled=by_version(rows.clients),
        clients={name: by_version([name]) for name in rows.clients},
        unigram=unigram_entropy(heldout) if rows.kind == "sft" and heldout else None,
        reference=rows.reference if rows.has_rewards else None,
        beta=rows.beta,
        available=rows.available,
    )


class _RowProgress:
    """Progress over the rows of all versions."""

    def __init__(self, on_progress: ProgressCallback, versions: int, rows: int) -> None:
        self._on_progress, self._rows, self._total = on_progress, rows, max(1, versions * rows)
        self._done = 0

    def begin(self, version: int) -> Callable[[int], None]:
        """Return the callback for the rows of a version that are done."""
        message = f"evaluating version {version} on {self._rows} rows"

        def on_rows(count: int) -> None:
            self._done += count
            self._on_progress(message, self._done / self._total)

        on_rows(0)
        return on_rows


def _rows_to_answer(sets: Sequence[EvaluationRows], count: int) -> list[Row]:
    """Return held-out instructions, or else judged answers; a classifier generates no text."""
    for kind in ("sft", "va", "kto"):
        for each in sets:
            if each.kind == kind and (indexes := each.sample_indexes(count)):
                return [each.rows[i] for i in indexes]
    return []


def _classified_rows(
    sets: Sequence[EvaluationRows],
    scores: Sequence[Sequence[Scores]],
    count: int,
    labels: Sequence[str],
) -> list[AnsweredRow]:
    answered = []
    for each, by_version in zip(sets, scores, strict=True):
        for i in each.sample_indexes(count) if each.kind == "cls" else ():
            answers = [labels[one[i][1]] for one in by_version]
            answered.append(_answered_row(each.rows[i], answers))
    return answered


def _answered_row(row: Row, answers: Sequence[str]) -> AnsweredRow:
    return AnsweredRow(
        asked=format_line(format_question(row)),
        expected=format_line(expected_answer(row)),
        answers=tuple(format_line(answer) for answer in answers),
    )

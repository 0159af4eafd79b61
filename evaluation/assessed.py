"""Figures of evaluated versions, and the answers that versions gave during a run.

`evaluation/assessment.py` computes the figures. This module imports no torch, so that the report of
a run without rows needs none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.config.config import PhaseConfig
from common.protocol.fields import RowKind
from common.run_directory.recorded_run import RecordedRun
from evaluation.prompts import format_line
from learning.evaluation.metrics import EvalMetrics


@dataclass(frozen=True)
class EvaluatedVersion:
    """A version to evaluate."""

    version: int
    title: str  # in the report


@dataclass(frozen=True)
class KindAssessment:
    """Metrics on one kind of rows, in the order of the evaluated versions.

    Attributes:
        unigram: For sft, nats per token of the held-out responses under their own unigram
            distribution: a model that has learned anything from context needs fewer.
    """

    kind: RowKind
    heldout: tuple[EvalMetrics, ...]
    pooled: tuple[EvalMetrics, ...]  # on the validation rows of all clients together
    clients: Mapping[str, tuple[EvalMetrics, ...]]  # on the validation rows of each client
    unigram: float | None = None
    reference: int | None = None  # the version with which rewards are compared, if there are any
    beta: float | None = None  # β of the rewards
    available: int = 0  # rows that fit the model, of which a sample was evaluated


@dataclass(frozen=True)
class AnsweredRow:
    """A held-out row with the answer of each version, in the form of the report's JSON.

    Each text is one printable line.
    """

    asked: str
    expected: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Assessment:
    """Metrics and answers of a version and of those that it is compared with."""

    version: int
    subjects: tuple[EvaluatedVersion, ...]  # oldest first; the last one is `version`
    kinds: tuple[KindAssessment, ...]  # in the order in which the plan learns them
    samples: tuple[AnsweredRow, ...]  # of the first kind that has text to show
    labels: tuple[str, ...]  # class names of a run that classifies


def first_title(run: RecordedRun) -> str:
    """Return the title of version 0: the base model, unless the run began with another adapter."""
    return "base" if run.start is None else "start"


def choose_versions(
    phases: Sequence[PhaseConfig], version: int, first: str = "base"
) -> tuple[EvaluatedVersion, ...]:
    """Return version 0, the end of each phase before a version, and the version itself.

    Args:
        first: Title of version 0, by `first_title`.
    """
    subjects = [EvaluatedVersion(0, first)]
    end = 0
    for phase in phases:
        end += phase.versions
        if end < version:
            subjects.append(EvaluatedVersion(end, f"version {end} (after {phase.objective})"))
    if version:
        subjects.append(EvaluatedVersion(version, f"version {version}"))
    return tuple(subjects)


def recorded_answers(
    run: RecordedRun, subjects: Sequence[EvaluatedVersion], count: int
) -> tuple[AnsweredRow, ...]:
    """Return rows that every one of the versions has answered during the run."""
    texts = [sample for sample in run.samples if sample.kind != "cls"]
    answers = {(sample.asked, sample.version): sample.answer for sample in texts}
    expected = {sample.asked: sample.expected for sample in texts}
    complete = [
        asked for asked in expected if all((asked, one.version) in answers for one in subjects)
    ]
    return tuple(
        AnsweredRow(
            format_line(asked),
            format_line(expected[asked]),
            tuple(format_line(answers[asked, one.version]) for one in subjects),
        )
        for asked in complete[:count]
    )

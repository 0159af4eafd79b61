"""What one version after another says of a few held-out rows. For `evaluation.live_samples`.

On the CPU, even where there is a GPU: a model more on the card that trains could be one too many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from itertools import islice

import torch

from common.clock import Clock
from common.config.config import SamplesConfig
from common.errors import RunError
from common.protocol.fields import RowKind
from common.protocol.tensors import Tensors
from common.protocol.versions import SampleAnswer
from evaluation.assessment import kinds
from evaluation.evaluator import HELDOUT, EvaluationSet, Evaluator
from evaluation.opening import Opened
from evaluation.prompts import expected_answer, printable_line, prompt, question
from learning.data.row_types import Row
from learning.training.device import Compute

THREADS = 1  # the other cores train, where this machine trains as well
MAX_QUESTION, MAX_ANSWER = 500, 1000  # characters, at most

Key = tuple[int, str]
"""A version, and what it was asked."""


class SampleAnswerer:
    """One base model with an adapter's place, and the rows that it is asked about."""

    def __init__(
        self, run: Opened, settings: SamplesConfig, clock: Clock, stopped: Callable[[], bool]
    ) -> None:
        """Load the model; by the thread that is to use it, whose share of the cores it sets.

        Args:
            run: The run.
            settings: How many rows, and how long an answer.
            clock: Seconds since the epoch.
            stopped: Once true, answers are broken off.

        Raises:
            DataError: The held-out rows are gone.
            ModelError: The base model cannot be loaded.
        """
        self._run, self._settings, self._clock, self._stopped = run, settings, clock, stopped
        torch.set_num_threads(THREADS)
        self._bench = Evaluator(run, Compute(torch.device("cpu"), THREADS, autocast=False))
        self._exams = list(self._chosen())

    def answers(self, version: int, known: Set[Key]) -> Iterator[SampleAnswer]:
        """What a version says of each row; nothing if it has been removed.

        Args:
            version: On the disk, or not any more.
            known: What need not be asked again.
        """
        exams = [exam for exam in self._exams if (version, _asked(exam)) not in known]
        tensors = self._tensors(version) if exams else None
        if tensors is None:
            return
        self._bench.become(tensors)
        found = self._answers(exams)
        if self._stopped():  # in the middle of it
            return
        for exam, (answer, probability) in zip(exams, found, strict=True):
            yield SampleAnswer(
                version=version,
                at=self._clock(),
                kind=exam.kind,
                asked=_asked(exam),
                expected=printable_line(expected_answer(exam.rows[0]), MAX_QUESTION),
                answer=printable_line(answer, MAX_ANSWER),
                probability=probability,
            )

    def _chosen(self) -> Iterator[EvaluationSet]:
        """An exam for each row; all kinds get a share."""
        names = kinds(self._run.phases)
        for i, kind in enumerate(names):
            share = len(range(i, self._settings.prompts, len(names)))
            rows: dict[str, Row] = {question(row): row for row in self._bench.heldout(kind, share)}
            for row in rows.values():
                yield from self._exam(kind, row)

    def _exam(self, kind: RowKind, row: Row) -> Iterator[EvaluationSet]:
        exam = self._bench.encode(kind, 0, [(HELDOUT, row)])
        return islice([exam], len(exam.rows))  # none where the row does not fit

    def _tensors(self, version: int) -> Tensors | None:
        try:
            return self._run.tensors(version)
        except RunError:
            if self._run.place(version).exists():
                raise
            return None  # the run has gone on, and keeps only its newest

    def _answers(self, exams: Sequence[EvaluationSet]) -> list[tuple[str, float | None]]:
        """Text, or a class with its probability: a run has rows for one kind of model."""
        if self._run.labels:
            found = [answer for exam in exams for answer in self._bench.classify(exam)]
            return [(self._run.labels[label], probability) for label, probability in found]
        prompts = [prompt(exam.rows[0]) for exam in exams]
        texts = self._bench.generate(prompts, self._settings.new_tokens, self._stopped)
        return [(text, None) for text in texts]


def _asked(exam: EvaluationSet) -> str:
    return printable_line(question(exam.rows[0]), MAX_QUESTION)

"""Answers of one version after another to a few held-out rows, for `evaluation/live_samples.py`.

The model stays on the CPU even where there is a GPU: a second model on the card that trains could
be one too many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from itertools import islice
from pathlib import Path

import torch

from common.clock import Clock
from common.config.config import SamplesConfig
from common.errors import RunError
from common.protocol.fields import RowKind
from common.protocol.tensors import Tensors
from common.protocol.versions import SampleAnswer
from common.run_directory.recorded_run import RecordedRun
from evaluation.evaluator import HELDOUT, EvaluationRows, Evaluator
from evaluation.prompts import expected_answer, format_line, format_question
from learning.data.prompts_file import read_prompts
from learning.data.row_types import Row
from learning.training.device import Compute

THREADS = 1  # the other cores train, where this machine trains as well
MAX_QUESTION, MAX_ANSWER = 500, 1000  # characters

SampleKey = tuple[int, str]  # a version and a question


class SampleAnswerer:
    """A model that loads one version after another, with the rows that it answers.

    Args:
        stopped: Generation ends early once this returns true.
    """

    def __init__(
        self,
        run: RecordedRun,
        base_path: Path,
        settings: SamplesConfig,
        clock: Clock,
        stopped: Callable[[], bool],
    ) -> None:
        self._run, self._settings, self._clock, self._stopped = run, settings, clock, stopped
        self._evaluator = Evaluator(
            run, base_path, Compute(torch.device("cpu"), THREADS, autocast=False)
        )
        self._sets: Sequence[EvaluationRows] = ()
        self._expected: dict[str, str] = {}  # by question, of prompts from a file

    def load(self) -> None:
        """Load the model and choose the rows; limit the threads of PyTorch.

        Raises:
            DataError: The held-out rows are gone, or the file of prompts cannot be used.
            ModelError: The base model cannot be loaded.
        """
        torch.set_num_threads(THREADS)
        self._sets = tuple(self._choose_rows())

    def answers(self, version: int, known: Set[SampleKey]) -> Iterator[SampleAnswer]:
        """Yield a version's answers except the known ones; none if the version was removed."""
        sets = [each for each in self._sets if (version, _question(each)) not in known]
        tensors = self._tensors(version) if sets else None
        if tensors is None:
            return
        self._evaluator.load_tensors(tensors)
        answers = self._answer(sets)
        if self._stopped():  # in the middle of an answer
            return
        for each, (answer, probability) in zip(sets, answers, strict=True):
            yield SampleAnswer(
                version=version,
                at=self._clock(),
                kind=each.kind,
                asked=_question(each),
                expected=format_line(self._expected_answer(each), MAX_QUESTION),
                answer=format_line(answer, MAX_ANSWER),
                probability=probability,
            )

    def _expected_answer(self, rows: EvaluationRows) -> str:
        own = expected_answer(rows.rows[0])
        return self._expected.get(_question(rows), own)

    def _choose_rows(self) -> Iterator[EvaluationRows]:
        """Yield a set of one row for each prompt of the file, or each held-out row to answer."""
        if self._settings.prompts_file is not None:
            yield from self._read_prompts(Path(self._settings.prompts_file))
        elif self._run.config.has_heldout:
            yield from self._choose_heldout()

    def _read_prompts(self, path: Path) -> Iterator[EvaluationRows]:
        kind: RowKind = "cls" if self._run.labels else "sft"
        for prompt in read_prompts(path, self._settings.prompts, self._run.labels):
            rows = self._evaluator.encode(kind, 0, [(HELDOUT, prompt.row)])
            if rows.rows:
                self._expected[_question(rows)] = prompt.expected or ""
                yield rows

    def _choose_heldout(self) -> Iterator[EvaluationRows]:
        """Yield held-out rows; all kinds get a share."""
        kinds = self._run.config.kinds
        for i, kind in enumerate(kinds):
            share = len(range(i, self._settings.prompts, len(kinds)))
            heldout = self._evaluator.heldout_rows(kind, share)
            rows: dict[str, Row] = {format_question(row): row for row in heldout}
            for row in rows.values():
                encoded = self._evaluator.encode(kind, 0, [(HELDOUT, row)])
                yield from islice([encoded], len(encoded.rows))  # none if the row does not fit

    def _tensors(self, version: int) -> Tensors | None:
        try:
            return self._run.tensors(version)
        except RunError:
            if self._run.version_directory(version).exists():
                raise
            return None  # the run has gone on, and keeps only its newest versions

    def _answer(self, sets: Sequence[EvaluationRows]) -> list[tuple[str, float | None]]:
        """Return texts, or classes with probabilities: a run has one kind of model."""
        if labels := self._run.labels:
            answers = [answer for each in sets for answer in self._evaluator.classify(each)]
            return [(labels[label], probability) for label, probability in answers]
        rows = [each.rows[0] for each in sets]
        texts = self._evaluator.generate(rows, self._settings.new_tokens, self._stopped)
        return [(text, None) for text in texts]


def _question(rows: EvaluationRows) -> str:
    return format_line(format_question(rows.rows[0]), MAX_QUESTION)

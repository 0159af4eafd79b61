"""Evaluating the versions of a run as they appear, one after another, by plug-ins.

Which versions are due follows from the run directory, so that a resumed run continues: phase ends,
and every so many versions as configured. A version that was removed before its turn is skipped.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.protocol.evaluations import MAX_FIGURES, EvaluatorFigures
from common.run_directory.recorded_run import RecordedRun
from evaluation.evaluators.protocol import Evaluator, VersionInfo


class DeadlineError(Exception):
    """An evaluation took longer than its deadline."""


@dataclass(frozen=True)
class ScheduledEvaluator:
    """An evaluator, and when it evaluates: at phase ends and every `every` versions."""

    name: str
    evaluator: Evaluator
    every: int | None
    deadline_s: float

    def is_due(self, version: int, phase_ends: tuple[int, ...]) -> bool:
        return version in phase_ends or (self.every is not None and version % self.every == 0)


class EvaluatorRunner:
    """Evaluators of one run.

    Args:
        run: The run as it was at the start; new versions are found in its directory.
        on_figures: Called with the figures of each evaluation.
        on_failure: Called with the reason if an evaluator fails; that version is not tried again.
    """

    def __init__(
        self,
        run: RecordedRun,
        base: Path,
        evaluators: tuple[ScheduledEvaluator, ...],
        on_figures: Callable[[EvaluatorFigures], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self._run, self._base, self._evaluators = run, base, evaluators
        self._on_figures, self._on_failure = on_figures, on_failure
        self._done = {(each.version, each.evaluator) for each in run.evaluators}

    def run(self, next_command: Callable[[], dict[str, Any] | None]) -> None:
        """Evaluate versions until a command says that there will be no more of them.

        `next_command` waits a moment and returns None if there is no command.
        """
        ended = False
        while not ended:
            ended = next_command() is not None
            while self.evaluate_next():
                pass
        for each in self._evaluators:
            each.evaluator.close()

    def evaluate_next(self) -> bool:
        """Evaluate the oldest version that is due; return whether there was one."""
        due = next(self._due(), None)
        if due is None:
            return False
        version, scheduled = due
        self._done.add((version, scheduled.name))
        directory = self._run.version_directory(version)
        info = VersionInfo(version, directory, self._base, "peft_type" in self._run.adapter_config)
        begun = time.monotonic()
        try:
            with _deadline(scheduled.deadline_s):
                figures = _checked(scheduled.evaluator.evaluate(info))
        except Exception as error:
            if directory.exists():
                reason = str(error) or type(error).__name__
                self._on_failure(f"evaluator {scheduled.name}: version {version}: {reason}")
            return True
        seconds = time.monotonic() - begun
        self._on_figures(
            EvaluatorFigures(
                version=version,
                at=time.time(),
                evaluator=scheduled.name,
                figures=figures,
                seconds=seconds,
            )
        )
        return True

    def _due(self) -> Iterator[tuple[int, ScheduledEvaluator]]:
        versions = self._run.directory / "versions"
        numbers = sorted(int(path.name) for path in versions.iterdir() if path.name.isdigit())
        for version in numbers:
            for each in self._evaluators:
                new = (version, each.name) not in self._done
                if new and each.is_due(version, (0, *self._run.phase_ends)):
                    yield version, each


def _checked(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures that are finite numbers; raise `ValueError` if there are too many."""
    if len(figures) > MAX_FIGURES:
        raise ValueError(f"it returned {len(figures)} figures, and {MAX_FIGURES} is the limit")
    numbers = {str(key)[:100]: float(value) for key, value in figures.items()}
    return {key: value for key, value in numbers.items() if math.isfinite(value)}


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise `DeadlineError` in the main thread after a time."""

    def expire(signum: int, frame: object) -> None:
        raise DeadlineError(f"it took longer than deadline_s = {seconds:g}")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

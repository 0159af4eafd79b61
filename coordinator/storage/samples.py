"""`samples.jsonl` of a run directory: what versions answered to held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.files import append_jsonl
from common.protocol.versions import SampleAnswer
from common.run_directory import samples
from coordinator.storage.journal import Journal


class SamplesFile:
    """The file, and its content in memory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.answers: tuple[SampleAnswer, ...] = ()
        """All answers, oldest first; empty before `read`."""

    @property
    def displayed(self) -> tuple[SampleAnswer, ...]:
        """The answers that viewers get."""
        return samples.select_shown(self.answers)

    def read(self) -> None:
        """Read the file.

        Raises:
            RunError: The file is damaged.
        """
        self.answers = samples.read_samples(self._directory)

    def append(self, journal: Journal, answers: Sequence[SampleAnswer]) -> None:
        """Append answers.

        Fenced: a coordinator that was replaced must not write among its successor's lines.

        Raises:
            FencedError: Another coordinator owns the run.
        """
        with journal.fenced():
            lines = (answer.fields() for answer in answers)
            append_jsonl(self._directory / samples.FILE, lines)
        self.answers = (*self.answers, *answers)

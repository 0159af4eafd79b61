"""`samples.jsonl` of a run directory: the answers of versions to held-out prompts."""

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
        """Answers that are published for viewers."""
        return samples.select_shown(self.answers)

    def read(self) -> None:
        """Read the file; raise `RunError` if it is damaged."""
        self.answers = samples.read_samples(self._directory)

    def append(self, journal: Journal, answers: Sequence[SampleAnswer]) -> None:
        # Fenced: a coordinator that was replaced must not write among its successor's lines.
        with journal.fenced():
            lines = (answer.fields() for answer in answers)
            append_jsonl(self._directory / samples.FILE, lines)
        self.answers = (*self.answers, *answers)

"""`samples.jsonl` of a run directory: the answers of versions to held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.files import append_jsonl
from common.protocol.versions import SampleAnswer
from common.run_directory import samples
from coordinator.storage.journal import Journal


class SamplesFile:
    """The file; memory holds only the answers that are published."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.displayed: tuple[SampleAnswer, ...] = ()
        """Answers that are published for viewers; empty before `read`."""

    def read(self) -> tuple[SampleAnswer, ...]:
        """Return all answers, oldest first; raise `RunError` if the file is damaged."""
        answers = samples.read_samples(self._directory)
        self.displayed = samples.select_shown(answers)
        return answers

    def append(self, journal: Journal, answers: Sequence[SampleAnswer]) -> None:
        # Fenced: a coordinator that was replaced must not write among its successor's lines.
        with journal.fenced():
            lines = (answer.fields() for answer in answers)
            append_jsonl(self._directory / samples.FILE, lines)
        self.displayed = samples.select_shown((*self.displayed, *answers))

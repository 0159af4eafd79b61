"""`samples.jsonl` of a run directory: appended to as versions answer, shown through the store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.files import append_jsonl
from common.protocol.versions import SampleAnswer
from common.run_directory import samples
from coordinator.storage.journal import Journal


class Samples:
    """What versions have said of held-out rows."""

    def __init__(self, directory: Path) -> None:
        """Read what is there.

        Raises:
            RunError: The file is damaged.
        """
        self._path = directory / samples.FILE
        self.all = samples.read(directory)

    @property
    def shown(self) -> tuple[SampleAnswer, ...]:
        """Those that viewers get."""
        return samples.shown(self.all)

    def add(self, journal: Journal, found: Sequence[SampleAnswer]) -> None:
        """Append; fenced, for a coordinator that was replaced must not write among others' lines.

        Raises:
            FencedError: Another coordinator owns the run.
        """
        with journal.fenced():
            append_jsonl(self._path, (sample.fields() for sample in found))
        self.all = (*self.all, *found)

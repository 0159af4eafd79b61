"""Verification of a run directory, for `fccl verify`. It writes nothing, beside a coordinator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.run_directory.update_journal import UpdateJournal, read_update_journal
from coordinator.storage.kept_updates import DIRECTORY
from evaluation.verification.accounting import check_run, check_versions
from evaluation.verification.recomputation import FileState, Recomputation


@dataclass(frozen=True)
class VerifiedVersion:
    """Result for one version; `evaluation/verification/recomputation.py` explains the fields."""

    version: int
    updates: int
    file: FileState
    recomputed: bool | None
    reason: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Verification:
    """Result for a run.

    Attributes:
        buffered: Accepted updates that wait for a version.
        problems: What is wrong with the run as a whole.
    """

    run: str
    versions: tuple[VerifiedVersion, ...]
    updates: int
    buffered: int
    problems: tuple[str, ...]

    @property
    def right(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and not any(each.problems for each in self.versions)

    @property
    def complete(self) -> bool:
        """Whether every version but the first was recomputed, and equals the journal's."""
        return all(each.recomputed for each in self.versions if each.version)


def verify(directory: Path) -> Verification:
    """Verify a run directory.

    Raises:
        RunError: It holds no run, a damaged one, or one of another release.
        ConfigError: Its configuration is damaged.
    """
    stored = {path.name for path in (directory / DIRECTORY).glob("*")}  # before the rows are read
    journal = read_update_journal(directory)
    accounting = check_versions(journal)
    versions = tuple(
        VerifiedVersion(
            version=number,
            updates=len(journal.versions[number].updates),
            file=result.file,
            recomputed=result.equal,
            reason=result.reason,
            problems=(*accounting[number], *result.problems),
        )
        for number, result in Recomputation(journal).versions()
    )
    return Verification(
        run=journal.run_id,
        versions=versions,
        updates=sum(update.version is not None for update in journal.updates),
        buffered=sum(update.version is None for update in journal.updates),
        problems=(*check_run(journal), *_unknown_files(journal, stored)),
    )


def _unknown_files(journal: UpdateJournal, stored: set[str]) -> list[str]:
    known = {update.kept for update in journal.updates}
    return [f"{DIRECTORY}/{name} is in no row of the journal" for name in sorted(stored - known)]

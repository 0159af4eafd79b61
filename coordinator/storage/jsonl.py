"""`progress.jsonl` and `client_metrics.jsonl`: figures of a run for grep and pandas.

They are derived from the journal: lines that a crash has prevented are appended at the next start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from common.files import append_jsonl, read_jsonl
from common.protocol.versions import VersionSummary
from coordinator.storage.journal import Journal

PROGRESS = "progress.jsonl"
CLIENT_METRICS = "client_metrics.jsonl"


class JsonlFiles:
    """The two files of one run directory."""

    def __init__(self, directory: Path) -> None:
        self._progress = directory / PROGRESS
        self._metrics = directory / CLIENT_METRICS

    def catch_up(self, journal: Journal) -> None:
        """Append a line for every journaled version and update that has none yet.

        Fenced: otherwise a coordinator that was paused and replaced would append its successor's
        lines a second time.
        """
        with journal.fenced():
            self._append_progress(journal.versions(after=_last_version(read_jsonl(self._progress))))
            written = read_jsonl(self._metrics)
            last = _last_version(written)
            # A crash may have prevented some lines of the last version: check that one again.
            known = {str(line["task_id"]) for line in written if line["version"] == last}
            self._append_metrics(journal.versions(after=last - 1), known)

    def _append_progress(self, summaries: list[VersionSummary]) -> None:
        lines = ({**s.fields(), "updates": [u.task_id for u in s.updates]} for s in summaries)
        append_jsonl(self._progress, lines)

    def _append_metrics(self, summaries: list[VersionSummary], known: Set[str]) -> None:
        for summary in summaries:
            lines = [
                {"version": summary.version, "phase": summary.phase, **update.fields()}
                for update in summary.updates
                if update.task_id not in known
            ]
            append_jsonl(self._metrics, lines)


def _last_version(lines: Sequence[Mapping[str, object]]) -> int:
    return int(str(lines[-1]["version"])) if lines else -1

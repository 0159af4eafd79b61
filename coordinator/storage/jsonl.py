"""`progress.jsonl`, `client_metrics.jsonl`, `evaluations.jsonl`: figures of a run, for pandas.

They are derived from the journal: lines that a crash has prevented are appended at the next start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path

from common.config.config import PhaseConfig
from common.evaluation.rows import EvaluationRow, evaluation_rows
from common.files import append_jsonl, read_jsonl
from common.protocol.versions import VersionSummary
from coordinator.storage.journal import Journal

PROGRESS = "progress.jsonl"
CLIENT_METRICS = "client_metrics.jsonl"
EVALUATIONS = "evaluations.jsonl"


class JsonlFiles:
    """The three files of one run directory."""

    def __init__(self, directory: Path, phases: Sequence[PhaseConfig] = ()) -> None:
        """Create the writer; `phases` are those of the plan."""
        self._progress = directory / PROGRESS
        self._metrics = directory / CLIENT_METRICS
        self._evaluations = directory / EVALUATIONS
        self._kinds = [phase.kind for phase in phases]
        self._phases = phases

    def catch_up(self, journal: Journal) -> None:
        """Append a line for every version, update and ended evaluation that has none yet.

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
            self._append_evaluations(journal)

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

    def _append_evaluations(self, journal: Journal) -> None:
        """Append, for each evaluation that has ended, its pooled figures and those of clients."""
        ended = [each for each in journal.evaluation_rounds() if each.closed_at is not None]
        if not ended:
            return
        records = journal.evaluations(self._phases)
        rows = {(r.phase, r.version): r for r in evaluation_rows(records, ended, self._kinds)}
        written = {_line_key(line) for line in read_jsonl(self._evaluations)}
        lines = (
            {"at": each.closed_at, **line}
            for each in ended
            for line in _evaluation_lines(rows[each.phase, each.version])
        )
        append_jsonl(self._evaluations, (line for line in lines if _line_key(line) not in written))


def _evaluation_lines(row: EvaluationRow) -> Iterator[dict[str, object]]:
    """Yield a line for each client that answered, then one for all of them together."""
    of_all: dict[str, object] = {"version": row.version, "phase": row.phase, "kind": row.kind}
    for own in row.clients:
        yield {**of_all, "client_id": own.client_id, "rows": own.rows, **own.values}
    missing = list(row.missing)
    yield {**of_all, "client_id": None, "rows": row.rows, **row.values, "missing": missing}


def _line_key(line: Mapping[str, object]) -> tuple[object, ...]:
    return tuple(line[name] for name in ("at", "version", "phase", "client_id"))


def _last_version(lines: Sequence[Mapping[str, object]]) -> int:
    return int(str(lines[-1]["version"])) if lines else -1

"""`progress.jsonl`, `client_metrics.jsonl`, `evaluations.jsonl`: figures of a run, for pandas.

Each step of the coordinator appends its own lines, at a cost that does not depend on the length of
the files. They are derived from the journal: lines that a crash has prevented are appended at the
next start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from itertools import takewhile
from pathlib import Path

from common.config.config import PhaseConfig
from common.errors import RunError
from common.evaluation.rows import EvaluationRow, evaluation_rows
from common.files import append_jsonl, read_jsonl, read_jsonl_backwards
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

    def repair(self, journal: Journal) -> None:
        """Append a line for every version, update and ended evaluation that has none yet.

        Fenced, as `append` is: otherwise a coordinator that was paused and replaced would append
        its successor's lines a second time.

        Raises:
            RunError: A file is damaged.
        """
        with journal.fenced():
            last = self._last_version(self._progress)
            self._append_progress(journal.each_version(after=last))
            last = self._last_version(self._metrics)
            # A crash may have prevented some lines of the last version: check that one again.
            known = self._tasks_of(last)
            self._append_metrics(journal.each_version(after=last - 1), known)
            self._append_missing_evaluations(journal)

    def append(
        self,
        journal: Journal,
        summaries: Iterable[VersionSummary],
        ended: Iterable[tuple[int, int]],
    ) -> None:
        """Append the lines of the versions and ended evaluations of one step.

        Args:
            journal: Has the step already.
            summaries: Versions that the step has made.
            ended: Version and phase of each evaluation of a version that the step has ended.
        """
        made = tuple(summaries)
        with journal.fenced():
            self._append_progress(made)
            self._append_metrics(made, frozenset())
            for key in ended:
                append_jsonl(self._evaluations, self._lines_of(journal, key))

    def _append_progress(self, summaries: Iterable[VersionSummary]) -> None:
        lines = ({**s.fields(), "updates": [u.task_id for u in s.updates]} for s in summaries)
        append_jsonl(self._progress, lines)

    def _append_metrics(self, summaries: Iterable[VersionSummary], known: Set[str]) -> None:
        for summary in summaries:
            lines = [
                {"version": summary.version, "phase": summary.phase, **update.fields()}
                for update in summary.updates
                if update.task_id not in known
            ]
            append_jsonl(self._metrics, lines)

    def _append_missing_evaluations(self, journal: Journal) -> None:
        ended = [each for each in journal.evaluation_rounds() if each.closed_at is not None]
        if not ended:
            return
        written = {_line_key(line) for line in self._read(self._evaluations, read_jsonl)}
        for each in ended:
            if (each.closed_at, each.version, each.phase, None) in written:
                continue  # the line of all clients together is the last one
            lines = self._lines_of(journal, (each.version, each.phase))
            missing = (line for line in lines if _line_key(line) not in written)
            append_jsonl(self._evaluations, missing)

    def _lines_of(self, journal: Journal, key: tuple[int, int]) -> Iterator[Mapping[str, object]]:
        """Yield the pooled figures of an ended evaluation, after those of its clients."""
        [each] = journal.evaluation_rounds(key)
        records = journal.evaluations(self._phases, key)
        [row] = evaluation_rows(records, [each], self._kinds)
        return ({"at": each.closed_at, **line} for line in _evaluation_lines(row))

    def _last_version(self, path: Path) -> int:
        last = next(self._read(path, read_jsonl_backwards), None)
        return -1 if last is None else int(str(last["version"]))

    def _tasks_of(self, version: int) -> Set[str]:
        """Return the updates of a version, the last one, that have a line."""
        lines = self._read(self._metrics, read_jsonl_backwards)
        newest = takewhile(lambda line: line["version"] == version, lines)
        return {str(line["task_id"]) for line in newest}

    def _read(
        self, path: Path, read: Callable[[Path], Iterator[dict[str, object]]]
    ) -> Iterator[dict[str, object]]:
        try:
            yield from read(path)
        except ValueError:  # of JSON, or of UTF-8
            raise RunError(f"{path} is damaged", "remove it: it is made again") from None


def _evaluation_lines(row: EvaluationRow) -> Iterator[dict[str, object]]:
    """Yield a line for each client that answered, then one for all of them together."""
    of_all: dict[str, object] = {"version": row.version, "phase": row.phase, "kind": row.kind}
    for own in row.clients:
        yield {**of_all, "client_id": own.client_id, "rows": own.rows, **own.values}
    missing = list(row.missing)
    yield {**of_all, "client_id": None, "rows": row.rows, **row.values, "missing": missing}


def _line_key(line: Mapping[str, object]) -> tuple[object, ...]:
    return tuple(line[name] for name in ("at", "version", "phase", "client_id"))

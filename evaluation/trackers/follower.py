"""Following a run: each figure of the run directory is given to a tracker once.

The progress is in `trackers/NAME.json` of the run directory, so that a resumed run continues the
same tracked run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.errors import RunError
from common.files import write_durable
from common.run_directory.recorded_run import RecordedRun, read_run
from evaluation.trackers.protocol import Outcome, RunInfo, Tracker
from evaluation.trackers.stream import new_figures

FOLDER = "trackers"
_WATCHED = ("progress.jsonl", "evaluations.jsonl", "evaluator_figures.jsonl")


class Follower:
    """One tracker that follows the run in a directory."""

    def __init__(self, directory: Path, name: str, tracker: Tracker) -> None:
        self._directory, self._tracker = directory, tracker
        self._path = directory / FOLDER / f"{name}.json"
        self._stamp: tuple[int, ...] = ()
        self._tracked_id: str | None = None
        self._logged: set[str] = set()

    def start(self) -> None:
        """Begin to track the run, or continue."""
        self._read()
        run = read_run(self._directory)
        self._tracked_id = self._tracker.start(run_info(run, self._tracked_id))
        self._write()

    def log_new(self) -> None:
        """Log the figures that have not been logged, if files of the run have changed."""
        stamp = tuple(_size(self._directory / name) for name in _WATCHED)
        if stamp == self._stamp:
            return
        for figures in new_figures(read_run(self._directory), frozenset(self._logged)):
            if figures.values:
                self._tracker.log(figures)
            self._logged.add(figures.key)
            self._write()
        self._stamp = stamp

    def follow(self, next_command: Callable[[], dict[str, Any] | None]) -> None:
        """Log figures until a command says how the run has ended.

        `next_command` waits a moment and returns None if there is no command.
        """
        outcome: Outcome = "stopped"
        self.start()
        try:
            command = None
            while command is None:
                self.log_new()
                command = next_command()
            self.log_new()
            outcome = command["finish"]
        finally:
            self._tracker.close(outcome)

    def _read(self) -> None:
        if self._path.exists():
            try:
                state = json.loads(self._path.read_text(encoding="utf-8"))
                self._tracked_id, self._logged = str(state["id"]), set(state["logged"])
            except (OSError, ValueError, KeyError, TypeError):
                raise RunError(
                    f"{self._path} is damaged", "remove it: a new tracked run begins"
                ) from None

    def _write(self) -> None:
        self._path.parent.mkdir(exist_ok=True)
        state = {"id": self._tracked_id, "logged": sorted(self._logged)}
        write_durable(self._path, json.dumps(state).encode())


def run_info(run: RecordedRun, tracked_id: str | None) -> RunInfo:
    """Return what a tracker gets to know about a run."""
    sections = ("broker", "store", "operations", "trackers", "evaluators", "offline")
    settings: dict[str, Any] = run.config.model_dump(mode="json", exclude=set(sections))
    return RunInfo(
        run.config.run.name, run.run_id, run.directory.resolve(), _flat(settings), tracked_id
    )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, inner in items for k, v in _flat(inner, f"{prefix}{key}.").items()}
    return {} if value is None else {prefix.rstrip("."): value}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0

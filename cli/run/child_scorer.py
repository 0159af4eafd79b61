"""Source of `server` scores for `fccl coordinator`: a child process that runs an `UpdateScorer`."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path

from cli.child_messages import MessageKind
from cli.run.child_process import ChildProcess
from common.errors import FcclError, RunError
from common.protocol.kinds import EventKind
from coordinator.core.events import EventLevel, LogEvent, UpdateScore, log_event
from coordinator.scores_source import ScoreRequest, ScoreSource, no_score

CLOSING_S = 2.0  # for the thread, once the child has been killed


class ChildScorer(ScoreSource):
    """Source of scores that a child process computes; without it, no update has a score."""

    def __init__(self, directory: Path, base_path: Path) -> None:
        request = {"directory": str(directory), "base_path": str(base_path)}
        self._child = ChildProcess("scores", request)
        self._thread = threading.Thread(target=self._receive, name="scores", daemon=True)
        self._lock = threading.Lock()
        self._open: dict[str, ScoreRequest] = {}
        self._scores: list[UpdateScore] = []
        self._events: list[LogEvent] = []
        self._closed = threading.Event()

    def start(self) -> None:
        try:
            self._child.start()
        except RunError as error:
            self._note("warning", f"no scores of updates: {error.what}")
            return
        self._thread.start()

    def request(self, requests: Sequence[ScoreRequest]) -> None:
        for each in requests:
            with self._lock:
                self._open[each.task_id] = each
            if not self._child.send({"score": dataclasses.asdict(each)}):
                self._answer(no_score(each))  # the child has ended, or its pipe is full

    def collect(self) -> tuple[list[UpdateScore], list[LogEvent]]:
        with self._lock:
            collected = self._scores, self._events
            self._scores, self._events = [], []
        return collected

    def close(self) -> None:
        self._closed.set()
        self._child.kill()
        if self._thread.is_alive():
            self._thread.join(CLOSING_S)

    def _receive(self) -> None:
        try:
            for message in self._child.messages():
                if message.kind is MessageKind.SCORE:
                    self._answer(UpdateScore(**message.fields["score"]))
                elif message.kind is MessageKind.NOTE:
                    self._note(message.fields["level"], message.text)
        except Exception as error:  # no error in scores stops the run
            if not self._closed.is_set():
                reason = error.what if isinstance(error, FcclError) else repr(error)
                self._note("warning", f"no more scores of updates: {reason}")
        finally:
            self._child.close(grace_s=0)
            with self._lock:
                unanswered = list(self._open.values())
            for each in unanswered:
                self._answer(no_score(each))

    def _answer(self, score: UpdateScore) -> None:
        with self._lock:
            self._open.pop(score.task_id, None)
            self._scores.append(score)

    def _note(self, level: EventLevel, text: str) -> None:
        with self._lock:
            self._events.append(log_event(level, EventKind.SCORES, text))

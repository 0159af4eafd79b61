"""Evaluators and trackers of a run, in child processes of `fccl coordinator` and `fccl demo`.

The evaluators share a process, and each tracker has its own. They follow the run directory, so that
a plug-in that is slow, hangs or crashes never disturbs the run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from threading import Event as Flag
from typing import Any, Literal

from cli.child_messages import MessageKind
from cli.console import Output
from cli.run.child_process import ChildProcess, run_task
from common.config.config import FederationConfig
from common.errors import FcclError, RunError
from common.protocol.evaluations import EvaluatorFigures
from common.protocol.kinds import EventKind
from coordinator.core.events import EventLevel, LogEvent
from coordinator.plugin_source import PluginSource
from coordinator.storage.run import Run

POLL_S = 0.1
CLOSING_S = 2.0  # for the thread, once the child has been killed
TRACKER_PATIENCE_S = 60.0  # longest wait for a tracker at the end of a run
MORE_PATIENCE_S = 60.0  # for evaluators, beyond their deadlines


def check_plugins(config: FederationConfig, output: Output) -> None:
    """Raise `ConfigError` for a plug-in that is not installed or an option that it refuses."""
    if config.trackers or config.evaluators or config.objective_plugins:
        run_task("check plug-ins", _tables(config), output)


def make_trackers(run: Run) -> PluginSource:
    """Return the trackers that the configuration of this start names."""
    children = [
        ChildPlugin(
            "tracker",
            {"directory": str(run.directory), "name": name, "options": options},
            f"tracker {name}",
            EventKind.TRACKER,
            TRACKER_PATIENCE_S,
        )
        for name, options in run.config.trackers.items()
    ]
    return ChildPlugins(children)


def make_evaluators(run: Run) -> PluginSource:
    """Return the evaluators that the configuration of this start names."""
    evaluators = run.config.evaluators
    if not evaluators:
        return PluginSource()
    request = {
        "directory": str(run.directory),
        "base_path": str(run.base_path),
        "evaluators": _tables(run.config)["evaluators"],
    }
    patience_s = MORE_PATIENCE_S + sum(each.deadline_s for each in evaluators.values())
    child = ChildPlugin(
        "evaluators", request, "evaluators of versions", EventKind.EVALUATOR, patience_s
    )
    return ChildPlugins([child])


def _tables(config: FederationConfig) -> dict[str, Any]:
    objectives = {name: config.objectives.get(name, {}) for name in config.objective_plugins}
    tables = config.model_dump(mode="json", include={"trackers", "evaluators"})
    return tables | {"objectives": objectives}


class ChildPlugin(PluginSource):
    """Plug-ins in one child process; `title` names them in messages."""

    def __init__(
        self,
        task: str,
        request: Mapping[str, Any],
        title: str,
        kind: EventKind,
        patience_s: float,
    ) -> None:
        self._child = ChildProcess(task, request)
        self._title, self._kind, self._patience_s = title, kind, patience_s
        self._thread = threading.Thread(target=self._receive, name=task, daemon=True)
        self._lock = threading.Lock()
        self._figures: list[EvaluatorFigures] = []
        self._events: list[LogEvent] = []
        self._closed = Flag()

    def start(self) -> None:
        try:
            self._child.start()
        except RunError as error:
            self._note("warning", f"{self._title}: {error.what}")
            return
        self._thread.start()

    def collect(self) -> tuple[list[EvaluatorFigures], list[LogEvent]]:
        with self._lock:
            collected = self._figures, self._events
            self._figures, self._events = [], []
        return collected

    def ask_to_finish(self, outcome: str) -> None:
        self._child.send({"finish": outcome})

    def finish(self, outcome: Literal["finished", "stopped"], stop: Flag) -> None:
        deadline = time.monotonic() + self._patience_s
        # A run that was stopped must end, even though `stop` stays set.
        while self._thread.is_alive() and not (outcome == "finished" and stop.is_set()):
            if time.monotonic() >= deadline:
                self._note("warning", f"{self._title}: no end within {self._patience_s:g} s")
                break
            self._thread.join(POLL_S)
        self.close()

    def close(self) -> None:
        self._closed.set()
        self._child.kill()
        if self._thread.is_alive():
            self._thread.join(CLOSING_S)

    def _receive(self) -> None:
        try:
            for message in self._child.messages():
                if message.kind is MessageKind.FIGURES:
                    figures = EvaluatorFigures.model_validate(message.fields["figures"])
                    with self._lock:
                        self._figures.append(figures)
                elif message.kind is MessageKind.NOTE:
                    self._note(message.fields["level"], message.text)
        except Exception as error:  # no error of a plug-in stops the run
            if not self._closed.is_set():
                reason = error.what if isinstance(error, FcclError) else repr(error)
                self._note("warning", f"{self._title} ended, and the run goes on: {reason}")
        finally:
            self._child.close(grace_s=0)

    def _note(self, level: EventLevel, text: str) -> None:
        with self._lock:
            self._events.append(LogEvent(level, self._kind, text[:500]))


class ChildPlugins(PluginSource):
    """Several child processes of plug-ins."""

    def __init__(self, children: Sequence[ChildPlugin]) -> None:
        self._children = children

    def start(self) -> None:
        for child in self._children:
            child.start()

    def collect(self) -> tuple[list[EvaluatorFigures], list[LogEvent]]:
        collected = [child.collect() for child in self._children]
        return [f for found, _ in collected for f in found], [e for _, n in collected for e in n]

    def finish(self, outcome: Literal["finished", "stopped"], stop: Flag) -> None:
        for child in self._children:
            child.ask_to_finish(outcome)
        for child in self._children:
            child.finish(outcome, stop)

    def close(self) -> None:
        for child in self._children:
            child.close()

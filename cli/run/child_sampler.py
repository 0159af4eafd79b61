"""Source of live samples for `fccl coordinator`: a child process that runs a `LiveSampler`."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event as Flag

from cli.child_messages import MessageKind
from cli.run.child_process import ChildProcess
from common.config.config import SamplesConfig
from common.errors import FcclError, RunError
from common.protocol.kinds import EventKind
from common.protocol.versions import SampleAnswer
from coordinator.core.events import EventLevel, LogEvent
from coordinator.samples_source import PATIENCE_S, SamplesSource

POLL_S = 0.1
CLOSING_S = 2.0  # for the thread, once the child has been killed


class ChildSampler(SamplesSource):
    """Source of live samples that a child process generates."""

    def __init__(self, directory: Path, base_path: Path, settings: SamplesConfig) -> None:
        self._directory, self._base_path, self._settings = directory, base_path, settings
        self._child: ChildProcess | None = None
        self._thread = threading.Thread(target=self._receive, name="samples", daemon=True)
        self._lock = threading.Lock()
        self._samples: list[SampleAnswer] = []
        self._notes: list[LogEvent] = []
        self._closed = Flag()

    def start(self, version: int, answers: Sequence[SampleAnswer]) -> None:
        """Start the child, unless samples are turned off.

        It reads earlier answers from the run directory.
        """
        if not self._settings.prompts:
            return
        request = {
            "directory": str(self._directory),
            "base_path": str(self._base_path),
            "settings": self._settings.model_dump(mode="json"),
            "version": version,
        }
        child = ChildProcess("samples", request)
        try:
            child.start()
        except RunError as error:
            self._note("warning", f"no samples of versions: {error.what}")
            return
        self._child = child
        self._thread.start()

    def offer(self, version: int) -> None:
        if self._child is not None:
            self._child.send({"offer": version})  # skipped if the pipe is full

    def collect(self) -> tuple[list[SampleAnswer], list[LogEvent]]:
        with self._lock:
            collected = self._samples, self._notes
            self._samples, self._notes = [], []
        return collected

    def finish(self, stop: Flag) -> None:
        if self._child is not None and self._child.send({"finish": True}):
            deadline = time.monotonic() + PATIENCE_S
            while self._thread.is_alive() and time.monotonic() < deadline and not stop.is_set():
                self._thread.join(POLL_S)
        self.close()

    def close(self) -> None:
        self._closed.set()
        if self._child is not None:
            self._child.kill()
        if self._thread.is_alive():
            self._thread.join(CLOSING_S)

    def _receive(self) -> None:
        assert self._child is not None
        try:
            for message in self._child.messages():
                if message.kind is MessageKind.SAMPLE:
                    answer = SampleAnswer.model_validate(message.fields["sample"])
                    with self._lock:
                        self._samples.append(answer)
                elif message.kind is MessageKind.NOTE:
                    self._note(message.fields["level"], message.text)
        except Exception as error:  # no error in samples stops the run
            if not self._closed.is_set():
                reason = error.what if isinstance(error, FcclError) else repr(error)
                self._note("warning", f"no more samples of versions: {reason}")
        finally:
            self._child.close(grace_s=0)

    def _note(self, level: EventLevel, text: str) -> None:
        with self._lock:
            self._notes.append(LogEvent(level, EventKind.SAMPLES, text[:500]))

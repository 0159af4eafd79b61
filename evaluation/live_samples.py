"""Live samples: answers of some versions to held-out rows, generated in a thread during the run.

The coordinator never waits for the thread: it offers each version that it makes, and collects the
answers so far. Versions are read from the run directory. If answering is slower than the run,
versions are skipped: only the newest one waits, and those that are never removed from the disk, the
base and the ends of phases.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event as Flag

from common.clock import Clock
from common.config.config import SamplesConfig
from common.errors import FcclError
from common.memory import release_free_memory
from common.protocol.kinds import EventKind
from common.protocol.versions import SampleAnswer
from common.run_directory.recorded_run import RecordedRun
from coordinator.core.events import EventLevel, LogEvent
from coordinator.samples_source import PATIENCE_S, SamplesSource
from evaluation.sample_answers import SampleAnswerer, SampleKey

PARTS = 8  # of a plan, each of which ends with samples unless samples.every is set
CLOSING_S = 5.0  # for a model that is being loaded
POLL_S = 0.1
MB = 10**6


def is_due(phase_ends: Sequence[int], every: int | None, version: int) -> bool:
    """Return whether a version answers: the base, ends of phases, and `every` versions between.

    None stands for an eighth of the plan.
    """
    step = every or max(1, phase_ends[-1] // PARTS)
    return version % step == 0 or version in phase_ends


class LiveSampler(SamplesSource):
    """Source of live samples in a thread of this process.

    All methods are called by one thread, that of the coordinator. The settings may differ from
    those with which the run began.
    """

    def __init__(
        self, run: RecordedRun, base_path: Path, settings: SamplesConfig, clock: Clock
    ) -> None:
        self._run, self._base_path, self._settings = run, base_path, settings
        self._clock = clock
        self._known: set[SampleKey] = set()
        self._permanent = {0, *run.phase_ends}
        self._changed = threading.Condition()
        self._waiting: list[int] = []
        self._samples: list[SampleAnswer] = []
        self._notes: list[LogEvent] = []
        self._finishing, self._closed = False, Flag()
        self._thread = threading.Thread(target=self._run_thread, name="samples", daemon=True)

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def start(self, version: int, answers: Sequence[SampleAnswer]) -> None:
        """Start with the base and the newest version, unless samples are turned off."""
        if not self._settings.prompts:
            return
        self._known = {(sample.version, sample.asked) for sample in answers}
        self.offer(0)
        self.offer(version)
        self._thread.start()

    def offer(self, version: int) -> None:
        if not is_due(self._run.phase_ends, self._settings.every, version):
            return
        with self._changed:
            kept = [each for each in self._waiting if each in self._permanent and each != version]
            self._waiting = [*kept, version]
            self._changed.notify()

    def collect(self) -> tuple[list[SampleAnswer], list[LogEvent]]:
        with self._changed:
            collected = self._samples, self._notes
            self._samples, self._notes = [], []
        return collected

    def finish(self, stop: Flag) -> None:
        self.end_offers()
        deadline = time.monotonic() + PATIENCE_S
        while self.running and time.monotonic() < deadline and not stop.is_set():
            self._thread.join(POLL_S)
        self.close()

    def end_offers(self) -> None:
        """Let the thread end once the versions that wait have answered."""
        with self._changed:
            self._finishing = True
            self._changed.notify()

    def close(self) -> None:
        self._closed.set()
        with self._changed:
            self._changed.notify()
        if self.running:
            self._thread.join(CLOSING_S)

    # in the thread

    def _run_thread(self) -> None:
        try:
            self._answer_offers()
        except Exception as error:  # no error in samples stops the run
            reason = error.what if isinstance(error, FcclError) else repr(error)
            self._log("warning", f"no more samples of versions: {reason}")

    def _log(self, level: EventLevel, text: str) -> None:
        with self._changed:
            self._notes.append(LogEvent(level, EventKind.SAMPLES, text[:500]))

    def _answer_offers(self) -> None:
        size = sum(file.stat().st_size for file in self._base_path.glob("*.safetensors"))
        allowed = self._settings.model_mb
        if size > allowed * MB:
            text = f"no samples of versions: the base model has {size / MB:,.0f} MB"
            self._log("info", f"{text}, samples.model_mb allows {allowed:,}")
            return
        answerer = SampleAnswerer(
            self._run, self._base_path, self._settings, self._clock, self._closed.is_set
        )
        answerer.load()
        while (version := self._next()) is not None:
            for sample in answerer.answers(version, self._known):
                with self._changed:
                    self._samples.append(sample)
            release_free_memory()

    def _next(self) -> int | None:
        """Wait for a version to answer and return it; None at the end."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._waiting or self._finishing or self._closed.is_set()
            )
            if self._closed.is_set() or not self._waiting:
                return None
            return self._waiting.pop(0)

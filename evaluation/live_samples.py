"""Has some versions answer held-out rows while the run goes on, in a thread that nobody waits for.

The service offers each version that it makes and, at its pulse, takes what was found. Versions are
read from the run directory. Who is too slow skips: only the newest version waits to be asked, and
those that stay on the disk for good, the base and the ends of phases.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from threading import Event as Flag

from common.clock import Clock
from common.config.config import SamplesConfig
from common.errors import FcclError
from common.protocol.kinds import EventKind
from common.protocol.versions import SampleAnswer
from coordinator.core.events import EventLevel, LogEvent
from coordinator.core.state import Plan
from coordinator.samples_source import SamplesSource
from coordinator.storage.run import Run
from evaluation import opening
from evaluation.sample_answers import SampleAnswerer

PARTS = 8  # of a plan, each of which ends with samples, where the configuration does not say
PATIENCE_S = 30.0  # for the last version, once the plan is complete
CLOSING_S = 5.0  # for a model that is being loaded
POLL_S = 0.1
MB = 10**6


def permanent_versions(plan: Plan) -> set[int]:
    """The base, and the last version of each phase: never skipped."""
    return {0, *(plan.phase_end(phase) for phase in range(len(plan.phases)))}


def is_due(plan: Plan, every: int | None, version: int) -> bool:
    """Whether a version is to be asked.

    Args:
        plan: Of the run.
        every: Versions from one to the next; None for an eighth of the plan.
        version: That was made.
    """
    step = every or max(1, plan.total_versions // PARTS)
    return version % step == 0 or version in permanent_versions(plan)


class Sampler(SamplesSource):
    """The thread, between what is to be asked and what was answered. Used by one thread."""

    def __init__(self, run: Run, clock: Clock) -> None:
        """Nothing is loaded before `start`.

        Args:
            run: The opened run directory.
            clock: Seconds since the epoch.
        """
        self._plan, self._settings, self._clock = run.plan, run.samples, clock
        self._known: set[tuple[int, str]] = set()
        self._run = opening.of(run)
        self._lasting = permanent_versions(run.plan)
        self._changed = threading.Condition()
        self._waiting: list[int] = []
        self._samples: list[SampleAnswer] = []
        self._notes: list[LogEvent] = []
        self._last, self._closed = False, Flag()
        self._thread = threading.Thread(target=self._guard, name="samples", daemon=True)

    def start(self, version: int, answers: Sequence[SampleAnswer]) -> None:
        """Begin with the base and the newest version, unless no samples are wanted."""
        if not self._settings.prompts:
            return
        self._known = {(sample.version, sample.asked) for sample in answers}
        self.offer(0)
        self.offer(version)
        self._thread.start()

    def offer(self, version: int) -> None:
        """A version is on the disk."""
        if not is_due(self._plan, self._settings.every, version):
            return
        with self._changed:
            kept = [each for each in self._waiting if each in self._lasting and each != version]
            self._waiting = [*kept, version]
            self._changed.notify()

    def collect(self) -> tuple[list[SampleAnswer], list[LogEvent]]:
        """What was found since the last time, and what went wrong."""
        with self._changed:
            found = self._samples, self._notes
            self._samples, self._notes = [], []
        return found

    def finish(self, stop: Flag) -> None:
        """Let it ask what still waits, for a while, unless `stop` is set; then end it."""
        with self._changed:
            self._last = True
            self._changed.notify()
        deadline = time.monotonic() + PATIENCE_S
        while self._thread.is_alive() and time.monotonic() < deadline and not stop.is_set():
            self._thread.join(POLL_S)
        self.close()

    def close(self) -> None:
        """End it; an answer is broken off."""
        self._closed.set()
        with self._changed:
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(CLOSING_S)

    # in the thread

    def _guard(self) -> None:
        try:
            self._work(self._settings)
        except Exception as error:  # whatever it is, the run goes on
            reason = error.what if isinstance(error, FcclError) else repr(error)
            self._say("warning", f"no more samples of versions: {reason}")

    def _say(self, level: EventLevel, text: str) -> None:
        with self._changed:
            self._notes.append(LogEvent(level, EventKind.SAMPLES, text[:500]))

    def _work(self, settings: SamplesConfig) -> None:
        size = sum(file.stat().st_size for file in self._run.base_path.glob("*.safetensors"))
        if size > settings.model_mb * MB:
            text = f"no samples of versions: the base model has {size / MB:,.0f} MB"
            self._say("info", f"{text}, samples.model_mb allows {settings.model_mb:,}")
            return
        answering = SampleAnswerer(self._run, settings, self._clock, self._closed.is_set)
        while (version := self._next()) is not None:
            for sample in answering.answers(version, self._known):
                with self._changed:
                    self._samples.append(sample)

    def _next(self) -> int | None:
        """The next version to ask, once there is one; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._last or self._closed.is_set())
            if self._closed.is_set() or not self._waiting:
                return None
            return self._waiting.pop(0)

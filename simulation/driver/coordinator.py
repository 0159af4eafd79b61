"""Coordinator in virtual time: each step of the core, written to an ordinary run directory.

The order is that of `coordinator/service.py`: decide, write, then publish. Tasks go to the virtual
machines instead of a broker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from coordinator.aggregation.noise import reproducible_seeds
from coordinator.core import machine
from coordinator.core.events import (
    Action,
    CoordinatorEvent,
    FinishRun,
    LogEvent,
    RequestScores,
    ScoresArrived,
    UpdateScore,
)
from coordinator.core.state import BufferedUpdate, CoordinatorState, Plan
from coordinator.publish.store_publisher import versions_in_use
from coordinator.storage.candidates import Candidates
from coordinator.storage.recovery import recover
from coordinator.storage.run import Run
from coordinator.storage.spool import Spool
from coordinator.storage.step_writer import StepWriter, WrittenStep
from simulation.driver.clock import VirtualClock
from worker.site_task import SiteTask, unpack_task

ComputeScores = Callable[[Sequence[BufferedUpdate]], tuple[Sequence[UpdateScore], list[LogEvent]]]
"""Returns the scores of updates, and events about errors."""


class VirtualCoordinator:
    """The core of one run, its journal and its files."""

    def __init__(
        self,
        run: Run,
        plan: Plan,
        clock: VirtualClock,
        spool: Spool,
        compute_scores: ComputeScores,
        on_task: Callable[[str, SiteTask], None],
        on_step: Callable[[tuple[Action, ...], WrittenStep], None],
    ) -> None:
        """Create it.

        Args:
            run: The run directory, which no other coordinator uses.
            plan: Plan of the run, with a site for each client.
            clock: Virtual time.
            spool: Updates until their commit.
            compute_scores: Scores of updates, for the contribution sources that need any.
            on_task: Called with a site and each task for it.
            on_step: Called after each step with its actions and the versions that it has made.
        """
        self.plan, self.state = plan, CoordinatorState()
        self.candidates = Candidates(run.versions, spool, run.forms)
        self.finished: FinishRun | None = None
        self._run, self._clock, self._compute_scores = run, clock, compute_scores
        self._on_task, self._on_step = on_task, on_step
        seeds = reproducible_seeds(run.config.run.seed)
        self._writer = StepWriter(run, spool, self.candidates, seeds)

    def start(self) -> None:
        """Take the run over at version 0."""
        self._run.journal.take_over()
        self.state = recover(self.plan, self._run.journal, self._clock.now, 0.0)
        self._writer.start(self.state.version)

    def feed(self, event: CoordinatorEvent, upload: str = "") -> None:
        """Let the core decide on an event, write the decision, and carry it out.

        Raises:
            RunError: An update cannot be applied, or the disk refuses.
        """
        if self.finished is not None:
            return
        before, now = self.state, self._clock.now
        done = machine.step(self.plan, before, event, now)
        written = self._writer.write(before, done.state, done.actions, now, upload)
        self.state = done.state
        in_use = versions_in_use(self.plan, self.state) if written.summaries else set[int]()
        bases = {update.base_version for update in self.state.buffer}
        self._writer.clean_up(done.actions, upload, in_use | bases)
        self._writer.append_lines(written, done.actions)
        self._publish()
        self._finish(done.actions)
        self._on_step(done.actions, written)
        self._score(done.actions)

    def _publish(self) -> None:
        entries = self._run.journal.outbox()
        for entry in entries:
            self._on_task(entry.site, unpack_task(entry.frame))
        if entries:
            self._run.journal.mark_sent([entry.id for entry in entries])

    def _finish(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, FinishRun):
                self.finished = action

    def _score(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, RequestScores):
                scores, events = self._compute_scores(action.updates)
                self.record(*events)
                # The seconds of this machine are no part of a run that is the same on every one.
                timeless = tuple(replace(score, seconds=0.0) for score in scores)
                self.feed(ScoresArrived(timeless))

    def record(self, *events: LogEvent) -> None:
        """Write entries of the event feed that leave the state as it is."""
        if events:
            self._writer.write(self.state, self.state, events, self._clock.now)

    def next_deadline(self) -> float | None:
        """Return the time at which the buffer is due without any message, since the epoch."""
        state, schedule = self.state, self.plan.schedule
        times = []
        if state.full_at:
            times.append(state.full_at + self.plan.aggregation.score_deadline_s)
        if state.buffer and schedule.reissue == "immediate":
            times.append(state.buffered_at + schedule.flush_s)
        elif state.buffer:
            times.append(state.round_at + schedule.round_deadline_s)
        coming = [at for at in times if at > self._clock.now]
        return min(coming, default=None)

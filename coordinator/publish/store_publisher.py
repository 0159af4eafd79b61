"""Everything that the coordinator says to the store, and whether the store listens.

The run goes on without it: what cannot be shown is left out, and when the store answers again, or
came back empty, all of it is filled in from the run directory. Between `journal` and `status` on
an update's way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Event as Flag

from broker.protocol import QueueDepth
from common.clock import Clock
from common.errors import StoreError, WireError
from common.protocol.commands import Command
from common.protocol.feed import Event
from common.protocol.versions import SampleAnswer, VersionSummary
from common.protocol.wire import pack, unpack
from common.store.store import Store
from common.store.view import RunInfo, RunStatus
from coordinator.core import event_text, tasks
from coordinator.core.events import (
    AdmitClient,
    DismissClient,
    FinishRun,
    HeartbeatsRead,
    LogEvent,
    WorkerSignal,
)
from coordinator.core.state import CoordinatorState, Plan
from coordinator.publish.base_model_server import BaseServer
from coordinator.publish.status import Status
from coordinator.storage.run import Run

FAREWELL_S = 30.0  # workers end when they read that the run has ended: worth some patience
RETRY_S = 1.0


def in_store(plan: Plan, state: CoordinatorState) -> set[int]:
    """Versions that workers may fetch: the newest, those open tasks start from or compare with."""
    bases = {base for task in state.tasks.values() for base in task.bases}
    reference = plan.reference(plan.phase_of(state.version))
    return bases | {state.version} | (set() if reference is None else {reference})


class Board:
    """One run's place in the store. No method raises `StoreError`."""

    def __init__(
        self, run: Run, store: Store, clock: Clock, listen: Callable[[Event], None]
    ) -> None:
        """Nothing is read or written yet.

        Args:
            run: The opened run directory.
            store: May be out of reach for a while.
            clock: Seconds since the epoch.
            listen: Told when the store is lost, and when it is back.
        """
        self._run, self._store, self._clock, self._listen = run, store, clock, listen
        self._status = Status(
            store,
            run.name,
            run.run_id,
            run.plan,
            partial(tasks.current_model, run.plan, run.template),
        )
        self._base = BaseServer(store, run.run_id, run.base_path, run.template.base.digest)
        self._started = clock()
        self._published: set[int] = set()  # versions whose adapter is in the store
        self._up: bool | None = None  # unknown until first tried
        self._waiting = False
        self._samples: Sequence[SampleAnswer] = ()

    @property
    def up(self) -> bool:
        """Whether the store answered when it was last asked."""
        return bool(self._up)

    def beats(self, state: CoordinatorState) -> HeartbeatsRead:
        """The live workers. Every pulse asks, which is how a store that is back is noticed."""
        try:
            self._fill(state)
            heartbeats = self._store.heartbeats(self._run.run_id)
            self._base.serve(heartbeats)
        except StoreError as error:
            self._lost(error)
            return HeartbeatsRead((), store_up=False)
        signals = (
            WorkerSignal(h.site, h.task_id is not None, h.task_id, h.wishes) for h in heartbeats
        )
        return HeartbeatsRead(tuple(signals))

    def commands(self) -> list[Command]:
        """What operators ask for; stays in the store until `answered`."""
        found: list[Command] = []
        try:
            for raw in self._store.commands(self._run.run_id) if self._up else ():
                try:
                    found.append(unpack(Command, raw)[0])
                except WireError as error:
                    self._warn("command", f"a command cannot be read: {error.what}")
                    self._store.drop_commands(self._run.run_id, 1)
                    return found  # what stands behind it comes at the next look
        except StoreError as error:
            self._lost(error)
        return found

    def answered(self, command: Command) -> None:
        """Tell who asked for the oldest command what became of it, and take it away."""
        answer = self._run.journal.command_reply(command.command_id)
        if answer is None:
            return
        self._show(
            lambda: self._store.put_reply(self._run.run_id, command.command_id, pack(answer))
        )
        self._show(lambda: self._store.drop_commands(self._run.run_id, 1))

    def live(self, state: CoordinatorState, latest: VersionSummary) -> None:
        """Show how the run stands; say when it begins to wait for workers, and when it goes on."""
        info = self._info(state)
        self._show(lambda: self._status.live(info, state, latest))
        if self._up and (info.status == "waiting") != self._waiting:
            self._waiting = info.status == "waiting"
            note = LogEvent("info", "workers", info.detail)
            self._listen(event_text.to_event(note, self._clock()))

    def queues(self, depths: Mapping[str, QueueDepth]) -> None:
        """Show the depths of the run's queues."""
        self._show(partial(self._status.queues, depths))

    def samples(self, shown: Sequence[SampleAnswer]) -> None:
        """Show what versions have said of held-out rows, all of it."""
        self._samples = shown
        self._show(partial(self._status.samples, shown))

    def version(self, summary: VersionSummary) -> None:
        """Show a new version, adapter first."""
        self._show(partial(self._publish, summary))

    def receipt(self, task_id: str) -> None:
        """Tell the worker what became of a task."""
        receipt = self._run.journal.receipt(task_id)
        if receipt is not None:
            site = self._run.journal.site_of(task_id)
            self._show(partial(self._status.receipt, site, receipt))

    def membership(self, action: AdmitClient | DismissClient) -> None:
        """Tell a site whether its client takes part."""
        match action:
            case AdmitClient():
                self._show(partial(self._status.member, action))
            case DismissClient():
                self._show(partial(self._status.dismissed, action))

    def events(self, events: Sequence[Event]) -> None:
        """Append to the feed."""
        self._show(partial(self._status.events, events))

    def forget(self, needed: set[int], summaries: Sequence[VersionSummary]) -> None:
        """Take the adapters down that are not needed any more.

        Args:
            needed: Versions whose adapter stays.
            summaries: Of all versions, from 0.
        """
        stale = self._published - needed
        for version in stale:
            self._show(partial(self._status.forget, summaries[version]))
        if self._up:  # else they are still there, and tried again later
            self._published -= stale

    def farewell(
        self, finish: FinishRun, state: CoordinatorState, latest: VersionSummary, stop: Flag
    ) -> None:
        """Show how the run ended; a store out of reach is tried again, until `stop` is set."""
        status: RunStatus = "failed" if finish.failed else "stopped"
        if finish.complete:
            status = "finished"
        info = self._info(state, status).model_copy(update={"detail": finish.reason})
        deadline = time.monotonic() + FAREWELL_S
        while not self._last(info, state, latest):
            if time.monotonic() >= deadline or stop.wait(RETRY_S):
                self._warn("untold", f"the run is {status}, but no worker can read so: store down")
                return

    def _last(self, info: RunInfo, state: CoordinatorState, latest: VersionSummary) -> bool:
        try:
            self._fill(state)
            self._status.live(info, state, latest)
        except StoreError as error:
            self._lost(error)
            return False
        return True

    def _show(self, publish: Callable[[], None]) -> None:
        """Write to the store, unless it is known to be out of reach."""
        if not self._up:
            return
        try:
            publish()
        except StoreError as error:
            self._lost(error)

    def _publish(self, summary: VersionSummary) -> None:
        self._status.version(summary, self._run.versions.frame(summary.version))
        self._published.add(summary.version)

    def _fill(self, state: CoordinatorState) -> None:
        """Fill a store that was out of reach, or has lost what it held."""
        # Without its pointer it came back empty, maybe between two pulses.
        if self._up and self._store.get_version(self._run.run_id) is not None:
            return
        in_use = in_store(self._run.plan, state)
        self._status.samples(self._samples)
        self._status.restore(self._run.journal, self._run.versions, in_use)
        self._published |= in_use
        if self._up is False:
            self._warn("restored", "the store answers again")
        self._up = True

    def _lost(self, error: StoreError) -> None:
        if self._up is not False:
            self._warn("degraded", f"{error.what}: new tasks wait, updates are still accepted")
        self._up = False

    def _warn(self, kind: str, text: str) -> None:
        self._listen(event_text.to_event(LogEvent("warning", kind, text[:500]), self._clock()))

    def _info(self, state: CoordinatorState, status: RunStatus | None = None) -> RunInfo:
        run, plan = self._run, self._run.plan
        members = state.members(plan)
        served = [c for c in members.values() if c.site in state.sites]
        detail = f"{len(served)} of {len(members)} clients served"
        counts = run.journal.receipt_counts()
        return RunInfo(
            run=run.run_id,
            name=run.name,
            status=status or _status(state, bool(served)),
            detail=detail if served else f"waiting for workers: {detail}",
            version=state.version,
            total_versions=plan.total_versions,
            phase=min(plan.phase_of(state.version), len(plan.phases) - 1),
            phases=tuple(phase.objective for phase in plan.phases),
            phase_ends=tuple(plan.phase_end(phase) for phase in range(len(plan.phases))),
            clients=len(members),
            buffered=len(state.buffer),
            buffer_size=plan.schedule.buffer,
            open_tasks=len(state.tasks),
            accepted=counts.get("accepted", 0),
            rejected=counts.get("rejected", 0),
            started_at=self._started,
            updated_at=self._clock(),
            max_staleness=plan.schedule.max_staleness,
            software=run.software,
        )


def _status(state: CoordinatorState, served: bool) -> RunStatus:
    if state.draining or state.stopping:
        return "draining"
    if state.paused:
        return "paused"
    return "running" if served else "waiting"

"""The live driver of the core: one thread between the update queues, the journal and the store.

Each turn takes one message or one pulse, asks `coordinator/core.py` what follows, makes that
durable, and only then tells anyone: outbox to the broker, ack of the message, status to the store.
The embedded demo and the service over RabbitMQ and Redis are this same class.

On an update's way: `ingest` → `core` (`admission`, `contribution`, `staleness`) → `commit`
(`aggregation`) → `journal` → `status`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from threading import Event as Flag

from broker.protocol import Broker, Consumer, Delivery, Message, Site, Topology
from common.clock import Clock
from common.errors import BrokerError, StoreError, WireError
from common.records import Event, VersionSummary
from common.store import Store
from common.view import Info, RunStatus
from common.wire import pack
from coordinator import core, narration, retention, tasks
from coordinator.commit import carry_out
from coordinator.events import (
    Accept,
    Action,
    Beats,
    Close,
    Commit,
    CoordinatorEvent,
    Discard,
    Drain,
    Finish,
    Issue,
    Note,
    Repeat,
    Sign,
)
from coordinator.ingest import Arrival, Ingest
from coordinator.journal import Journal
from coordinator.ledger import Ledger
from coordinator.recovery import recover
from coordinator.run import Run
from coordinator.serving import BaseServer
from coordinator.spool import Spool
from coordinator.state import State
from coordinator.status import Status
from coordinator.versions import Versions

PULSE_S = 1.0  # heartbeats are read, time-outs looked at, status written
POLL_S = 0.2  # longest wait for a message; bounds the reaction to a stop
PREFETCH = 4  # chunks in flight from each site's queue


@dataclass(frozen=True)
class Outcome:
    """How a coordinator ended."""

    complete: bool
    reason: str
    version: int
    failed: bool = False


class Service:
    """One coordinator of one run."""

    def __init__(
        self,
        run: Run,
        broker: Broker,
        store: Store,
        clock: Clock,
        *,
        users: Mapping[str, str],
        listen: Callable[[Event], None],
        volatile: bool = False,
    ) -> None:
        """Take the run over; the constructor returns with the journal's state loaded.

        Args:
            run: The opened run directory.
            broker: Connected.
            store: Where status goes; may be out of reach for a while.
            clock: Seconds since the epoch.
            users: The broker user of each site.
            listen: Told every event, in this thread.
            volatile: The broker started empty: whatever was on its queues is lost.
        """
        self._run, self._plan = run, run.plan
        self._broker, self._store, self._clock = broker, store, clock
        self._users, self._listen = dict(users), listen
        self._journal: Journal = run.journal
        self._journal.take_over()
        sites = tuple(Site(name) for name in sorted(self._users))
        self._topology = Topology(run.run_id, sites)
        self._sites = {self._topology.update_queue(site): site.name for site in sites}
        self._versions: Versions = run.versions
        self._spool = Spool(run.directory / "spool")
        self._ledger = Ledger(run.directory)
        manifest = {name: tensor.shape for name, tensor in run.versions.read(0).items()}
        self._ingest = Ingest(self._journal, self._spool, manifest)
        self._status = Status(store, run.name, run.run_id, run.plan)
        self._base = BaseServer(store, run.run_id, run.base_path, run.template.base.digest)
        lease = 0.0 if volatile else run.plan.schedule.lease_s
        self._state: State = recover(self._journal, clock(), lease)
        self._summaries = self._journal.versions()
        self._published: set[int] = set()
        self._store_up: bool | None = None  # unknown until first tried
        self._finished: Finish | None = None
        self._started = self._pulsed = 0.0

    def serve(self, stop: Flag) -> Outcome:
        """Run until the plan is complete, or `stop` is set; then commit what is buffered.

        Raises:
            FencedError: Another coordinator took over.
            BrokerError: The broker refuses, or stays out of reach past its deadline.
            RunError: The disk refuses.
        """
        self._sweep()
        self._ledger.catch_up(self._journal)
        self._broker.declare(self._topology)
        self._started = self._clock()
        consumer = self._broker.consume_updates(self._topology, self._topology.sites, PREFETCH)
        try:
            while self._finished is None:
                self._turn(consumer, stop)
        finally:
            consumer.close()
        return self._end(self._finished)

    # one turn

    def _turn(self, consumer: Consumer, stop: Flag) -> None:
        if stop.is_set():
            self._step(Drain())
            return
        now = self._clock()
        if now - self._pulsed >= PULSE_S:
            self._pulsed = now
            self._pulse(now)
        delivery = None if self._finished else consumer.receive(POLL_S)
        if delivery is not None:
            self._deliver(consumer, delivery)

    def _deliver(self, consumer: Consumer, delivery: Delivery) -> None:
        site = self._sites[delivery.queue]
        try:
            arrival = self._ingest.take(delivery.message, site, self._users[site], self._clock())
        except WireError as error:
            self._dead(consumer, delivery, site, error.what)
            return
        actions = self._step(arrival.event, arrival) if arrival.event else ()
        reasons = [action.reason for action in actions if isinstance(action, Discard)]
        if reasons:
            consumer.reject(delivery, reasons[0])
        else:
            consumer.ack(delivery)

    def _dead(self, consumer: Consumer, delivery: Delivery, site: str, reason: str) -> None:
        text = f"a message of site {site} is dead-lettered: {reason}"[:500]
        self._write(self._state, (Note("warning", "dead-letter", text, (("site", site),)),))
        consumer.reject(delivery, reason)

    def _pulse(self, now: float) -> None:
        self._journal.check()
        self._ingest.expire(now)
        self._flush()
        self._step(self._beats())
        self._show(self._live)

    def _beats(self) -> Beats:
        try:
            # Without its pointer it came back empty, maybe between two pulses.
            if not self._store_up or self._store.get_version(self._run.run_id) is None:
                self._restore()
            heartbeats = self._store.heartbeats(self._run.run_id)
            self._base.serve(heartbeats)
        except StoreError as error:
            self._store_lost(error)
            return Beats((), store_up=False)
        signs = (Sign(h.site, h.task_id is not None, h.task_id) for h in heartbeats)
        return Beats(tuple(signs))

    # one step of the core, made durable, then told

    def _step(self, event: CoordinatorEvent, arrival: Arrival | None = None) -> tuple[Action, ...]:
        done = core.step(self._plan, self._state, event, self._clock())
        self._write(done.state, done.actions, arrival)
        return done.actions

    def _write(
        self, after: State, actions: tuple[Action, ...], arrival: Arrival | None = None
    ) -> None:
        now, before = self._clock(), self._state
        commits = [action for action in actions if isinstance(action, Commit)]
        made = {c.version: carry_out(c, self._versions, self._spool, now) for c in commits}
        self._summaries += made.values()
        told = [narration.narrate(action, before.version, made) for action in actions]
        notes = tuple(note for note in told if note is not None)
        records = tuple(a for a in actions if not isinstance(a, Note)) + notes
        upload = arrival.upload if arrival else ""
        if records or upload or before.clients is not after.clients:
            self._journal.write(
                before,
                after,
                records,
                now,
                frames=self._frames(actions, now),
                summaries=made,
                drop_chunks=[upload] if upload else [],
            )
        self._state = after
        self._clean(actions, upload)
        self._tell(actions, made, [narration.event(note, now) for note in notes])

    def _frames(self, actions: tuple[Action, ...], now: float) -> dict[str, bytes]:
        """The message of every task that is issued."""
        frames = {}
        for action in actions:
            if isinstance(action, Issue):
                adapter = self._summaries[action.task.base_version]
                template = self._run.template
                task = tasks.message(self._plan, template, action.task, adapter, now)
                frames[action.task.task_id] = pack(task)
        return frames

    def _clean(self, actions: tuple[Action, ...], upload: str) -> None:
        """Remove the files that the transaction has made superfluous."""
        accepted = {a.update.upload for a in actions if isinstance(a, Accept)}
        if upload and upload not in accepted:
            self._spool.drop(upload)
        for action in actions:
            if isinstance(action, Commit):
                for part in action.parts:
                    self._spool.drop(part.update.upload)
                self._retain()

    def _tell(
        self,
        actions: tuple[Action, ...],
        made: Mapping[int, VersionSummary],
        events: list[Event],
    ) -> None:
        for event in events:
            self._listen(event)
        if made:
            self._ledger.catch_up(self._journal)
        for summary in made.values():  # the adapter is there before a task names it
            self._show(partial(self._publish, summary))
        self._flush()
        for action in actions:
            if task_id := _settled(action):
                self._show(partial(self._receipt, task_id))
            if isinstance(action, Finish):
                self._finished = action
        if events:
            self._show(partial(self._status.events, events))

    def _flush(self) -> None:
        """Publish the outbox; what the broker does not confirm stays there."""
        for entry in self._journal.outbox():
            message = Message(entry.frame, message_id=entry.task_id)
            try:
                self._broker.publish_task(self._topology, Site(entry.site), message)
            except BrokerError as error:
                self._listen(_warning(self._clock(), "broker", str(error)))
                return
            self._journal.mark_sent([entry.id])

    # the store

    def _show(self, publish: Callable[[], None]) -> None:
        """Write to the store, unless it is known to be out of reach."""
        if not self._store_up:
            return
        try:
            publish()
        except StoreError as error:
            self._store_lost(error)

    def _store_lost(self, error: StoreError) -> None:
        if self._store_up is not False:
            text = f"{error.what}: new tasks wait, updates are still accepted"
            self._listen(_warning(self._clock(), "degraded", text))
        self._store_up = False

    def _restore(self) -> None:
        in_use = {base for task in self._state.tasks.values() for base in task.bases}
        self._status.restore(self._journal, self._versions, in_use)
        self._published |= in_use | {self._state.version}
        if self._store_up is False:
            self._listen(_warning(self._clock(), "restored", "the store answers again"))
        self._store_up = True

    def _publish(self, summary: VersionSummary) -> None:
        self._status.version(summary, self._versions.frame(summary.version))
        self._published.add(summary.version)

    def _receipt(self, task_id: str) -> None:
        receipt = self._journal.receipt(task_id)
        if receipt is not None:
            self._status.receipt(receipt)

    def _live(self) -> None:
        self._status.live(self._info(), self._state, self._summaries[-1])
        try:
            depths = self._broker.depths(self._topology)
        except BrokerError:
            return  # nothing to show; publishing and receiving say what is wrong
        self._status.queues(depths)

    def _info(self, status: RunStatus | None = None) -> Info:
        served = [c for c in self._plan.clients.values() if c.site in self._state.sites]
        waiting = not served
        detail = f"{len(served)} of {len(self._plan.clients)} clients served"
        counts = self._journal.counts()
        return Info(
            run=self._run.run_id,
            name=self._run.name,
            status=status or ("waiting" if waiting else "running"),
            detail=f"waiting for workers: {detail}" if waiting else detail,
            version=self._state.version,
            total_versions=self._plan.total_versions,
            phase=min(self._plan.phase_of(self._state.version), len(self._plan.phases) - 1),
            phases=tuple(phase.objective for phase in self._plan.phases),
            clients=len(self._plan.clients),
            buffered=len(self._state.buffer),
            buffer_size=self._plan.schedule.buffer,
            open_tasks=len(self._state.tasks),
            accepted=counts.get("accepted", 0),
            rejected=counts.get("rejected", 0),
            started_at=self._started,
            updated_at=self._clock(),
            max_staleness=self._plan.schedule.max_staleness,
            software=self._run.software,
        )

    # the disk

    def _sweep(self) -> None:
        """Remove what a crash left without a journal row."""
        self._versions.sweep(self._state.version)
        self._spool.sweep(self._journal.waiting() | self._journal.uploads().keys())

    def _retain(self) -> None:
        in_use = {base for task in self._state.tasks.values() for base in task.bases}
        kept = retention.keep(self._plan, self._summaries, self._run.keep_versions, in_use)
        self._versions.retain(kept)
        stale = self._published - in_use - {self._state.version}
        for version in stale:
            summary = self._summaries[version]
            self._show(partial(self._status.forget, summary))
        if self._store_up:  # else they are still there, and tried again later
            self._published -= stale

    def _end(self, finish: Finish) -> Outcome:
        status: RunStatus = "failed" if finish.failed else "stopped"
        if finish.complete:
            status = "finished"
        info = self._info(status).model_copy(update={"detail": finish.reason})
        self._show(lambda: self._status.live(info, self._state, self._summaries[-1]))
        if finish.complete:
            self._broker.delete(self._topology)
            self._ingest.expire(math.inf)  # nothing can complete them any more
        return Outcome(finish.complete, finish.reason, self._state.version, finish.failed)


def _settled(action: Action) -> str | None:
    """The task whose receipt an action has made, or asks to publish again."""
    match action:
        case Accept():
            return action.update.task_id
        case Repeat() | Close():
            return action.task_id
    return None


def _warning(now: float, kind: str, text: str) -> Event:
    return Event(at=now, level="warning", kind=kind, text=text[:500])

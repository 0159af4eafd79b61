"""The live driver of the core: one thread between the update queues, the journal and the store.

Each turn takes one message or one pulse, asks `coordinator/core/machine.py` what follows, makes that
durable, and only then tells anyone: outbox to the broker, ack of the message, status to the store
(`coordinator/publish/store_publisher.py`). The embedded demo and the service over RabbitMQ and Redis are this class.

On an update's way: `ingest` → `core` (`admission`, `contribution`, `staleness`) → `commit`
(`aggregation`) → `journal` → `board` and `status`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from threading import Event as Flag

from broker.protocol import (
    UPDATE_QUEUE_BYTES,
    Broker,
    Consumer,
    Delivery,
    Message,
    QueueType,
    Site,
    Topology,
)
from common.clock import Clock
from common.errors import BrokerError, RunError, WireError
from common.protocol.feed import Event
from common.protocol.versions import VersionSummary
from common.protocol.wire import pack
from common.store.store import Store
from coordinator.core import event_text, machine, tasks
from coordinator.core.events import (
    AcceptUpdate,
    Action,
    AdmitClient,
    CloseTask,
    CommandReceived,
    CommitVersion,
    CoordinatorEvent,
    DiscardMessage,
    DismissClient,
    FinishRun,
    IssueTask,
    LogEvent,
    RepeatReceipt,
    ReplyToCommand,
    SiteRevoked,
    StopRequested,
)
from coordinator.core.state import CoordinatorState
from coordinator.ingest.ingest import Allowance, Arrival, Ingest
from coordinator.observer import Nobody, Observer
from coordinator.publish.store_publisher import Board, in_store
from coordinator.samples_source import SamplesSource
from coordinator.sites.credentials import SiteAccess
from coordinator.storage import retention
from coordinator.storage.commit import write_version
from coordinator.storage.journal import Journal
from coordinator.storage.jsonl import Ledger
from coordinator.storage.recovery import recover
from coordinator.storage.run import Run
from coordinator.storage.samples import Samples
from coordinator.storage.spool import Spool
from coordinator.storage.versions import Versions

PULSE_S = 1.0  # heartbeats are read, time-outs looked at, status written
POLL_S = 0.2  # longest wait for a message; bounds the reaction to a stop
PREFETCH = 4  # chunks in flight from each site's queue
MAX_OFFENCES, OFFENCE_S = 50, 60.0  # dead letters of a site in so many seconds: that is a flood
MUTE_S = 600.0
TOO_EARLY = "the coordinator had not started yet: ask again"


@dataclass(frozen=True)
class RunOutcome:
    """How a coordinator ended.

    Attributes:
        complete: The plan is fulfilled.
        reason: For people.
        version: The newest.
        failed: The run cannot go on.
        before: The plan was fulfilled when this coordinator came.
    """

    complete: bool
    reason: str
    version: int
    failed: bool = False
    before: bool = False


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
        access: SiteAccess | None = None,
        listen: Callable[[Event], None],
        volatile: bool = False,
        queue_type: QueueType = "classic",
        update_bytes: int = UPDATE_QUEUE_BYTES,
        observe: Observer | None = None,
        samples: SamplesSource | None = None,
    ) -> None:
        """Take the run over; the constructor returns with the journal's state loaded.

        Args:
            run: The opened run directory.
            broker: Connected.
            store: May be out of reach for a while.
            clock: Seconds since the epoch.
            users: The broker user of each site whose clients were dealt here.
            access: To the invited sites; None where nobody can be invited.
            listen: Told every event, in this thread.
            volatile: The broker started empty: whatever was on its queues is lost.
            queue_type: Of the queues that it declares.
            update_bytes: That may wait on one site's update queue: its quota.
            observe: Told what was done, in this thread.
            samples: Source of live samples; without one the run has none.
        """
        self._run, self._plan = run, run.plan
        self._broker, self._clock = broker, clock
        self._users, self._listen = dict(users), listen
        self._observe = observe or Nobody()
        self._queue_type: QueueType = queue_type
        self._update_bytes = update_bytes
        self._own_users, self._access = dict(users), access
        self._allowances: Mapping[str, Allowance] = {}
        self._muted: dict[str, float] = {}  # flooding sites, until when
        self._offences: dict[str, deque[float]] = {}
        self._journal: Journal = run.journal
        self._journal.take_over()
        self._topology = self._of_sites(self._users)
        self._sites = self._queues()
        self._versions: Versions = run.versions
        self._spool = Spool(run.directory / "spool")
        self._ledger = Ledger(run.directory)
        manifest = {name: tensor.shape for name, tensor in run.versions.read(0).items()}
        self._ingest = Ingest(self._journal, self._spool, manifest)
        self._board = Board(run, store, clock, listen)
        lease = 0.0 if volatile else run.plan.schedule.lease_s
        self._state: CoordinatorState = recover(self._plan, self._journal, clock(), lease)
        self._complete = self._state.version >= self._plan.total_versions
        self._summaries = self._journal.versions()
        self._samples = Samples(run.directory)
        self._sampler = samples or SamplesSource()
        self._board.samples(self._samples.shown)
        self._finished: FinishRun | None = None
        self._pulsed = 0.0
        self._obeys = False

    def serve(self, stop: Flag) -> RunOutcome:
        """Run until the plan is complete, or `stop` is set; then commit what is buffered.

        Raises:
            FencedError: Another coordinator took over.
            BrokerError: The broker refuses, or stays out of reach past its deadline.
            RunError: The disk refuses.
        """
        self._sweep()
        self._ledger.catch_up(self._journal)
        self._broker.declare(self._topology)
        self._consumer = self._consume()
        self._sampler.start(self._state.version, self._samples.all)
        try:
            return self._end(self._turns(stop), stop)
        finally:
            self._sampler.close()

    # one turn

    def _turns(self, stop: Flag) -> FinishRun:
        try:
            while self._finished is None:
                self._turn(stop)
            return self._finished
        except RunError:
            self._journal.check_epoch()  # a successor removes files that this one was still to read
            raise
        finally:
            self._consumer.close()

    def _turn(self, stop: Flag) -> None:
        self._observe.turned()
        if stop.is_set():
            self._step(StopRequested())
            return
        now = self._clock()
        if now - self._pulsed >= PULSE_S:
            self._pulsed = now
            self._pulse(now)
        delivery = None if self._finished else self._consumer.receive(POLL_S)
        if delivery is not None:
            self._deliver(self._consumer, delivery)

    def _deliver(self, consumer: Consumer, delivery: Delivery) -> None:
        site = self._sites[delivery.queue]
        try:
            arrival = self._ingest.take(delivery.message, site, self._users[site], self._clock())
        except WireError as error:
            self._dead(consumer, delivery, site, error.what)
            return
        actions = self._step(arrival.event, arrival) if arrival.event else ()
        reasons = [action.reason for action in actions if isinstance(action, DiscardMessage)]
        if reasons:
            self._reject(consumer, delivery, reasons[0])
        else:
            consumer.ack(delivery)

    def _dead(self, consumer: Consumer, delivery: Delivery, site: str, reason: str) -> None:
        text = f"a message of site {site} is dead-lettered: {reason}"[:500]
        self._write(self._state, (LogEvent("warning", "dead-letter", text, (("site", site),)),))
        self._reject(consumer, delivery, reason)
        self._offend(site)

    def _reject(self, consumer: Consumer, delivery: Delivery, reason: str) -> None:
        try:
            consumer.reject(delivery, reason)
        except BrokerError as error:  # a broker that restarts must not end the run
            self._broker_failed(error)
            consumer.requeue(delivery)

    def _pulse(self, now: float) -> None:
        self._journal.check_epoch()
        self._ingest.expire(now)
        self._attend(now)
        self._flush()
        self._step(self._board.beats(self._state))
        self._obey()
        self._board.live(self._state, self._summaries[-1])
        self._sample()
        self._observe.pulsed(self._state, self._board.up)
        self._depths()

    def _obey(self) -> None:
        """Carry out what operators ask; what was done before a crash is only answered again.

        What was asked before this coordinator came may be hours old: nobody waits for it any more.
        """
        for command in self._board.commands():
            if self._finished is None and self._journal.command_reply(command.command_id) is None:
                if self._obeys:
                    self._step(CommandReceived(command))
                else:
                    self._write(self._state, (ReplyToCommand(command, TOO_EARLY),))
            self._board.answered(command)
        self._obeys = self._obeys or self._board.up

    # invited sites

    def _attend(self, now: float) -> None:
        """Serve the sites that have joined, and no more those that were revoked."""
        if self._access is None:
            return
        if notes := tuple(self._access.pulse()):
            self._write(self._state, notes)
        current = self._access.active()
        muted = {site: until for site, until in self._muted.items() if until > now}
        if current == self._allowances and muted.keys() == self._muted.keys():
            return
        self._serve_sites(self._access, current, muted)

    def _serve_sites(
        self, access: SiteAccess, current: Mapping[str, Allowance], muted: dict[str, float]
    ) -> None:
        known = {client.site for client in self._state.joined.values()} | self._allowances.keys()
        gone = known - current.keys()
        users = self._own_users | {site: access.user(site) for site in current}
        topology = self._of_sites(users)
        try:
            if gone:  # with an empty dead-letter queue, which is then declared again
                self._broker.delete(self._of_sites(gone))
            self._broker.declare(topology)
        except BrokerError as error:  # tried again at the next pulse
            self._broker_failed(error)
            return
        self._consumer.close()
        self._users, self._topology, self._muted = users, topology, muted
        self._sites = self._queues()
        self._consumer = self._consume()
        self._ingest.allow(current)
        self._allowances = current
        for site in sorted(gone):
            self._step(SiteRevoked(site))

    def _offend(self, site: str) -> None:
        """Count what had to be dead-lettered; a site that floods is not read for a while.

        Its queue then fills up to its limit, and the broker refuses the rest.
        """
        if site in self._own_users:
            return
        now = self._clock()
        recent = self._offences.setdefault(site, deque(maxlen=MAX_OFFENCES))
        recent.append(now)
        if len(recent) < MAX_OFFENCES or now - recent[0] > OFFENCE_S or site in self._muted:
            return
        recent.clear()
        text = f"site {site} sent {MAX_OFFENCES} messages that had to be dead-lettered: its queue"
        text += f" is not read for {MUTE_S / 60:.0f} minutes; `fccl revoke {site}` shows it out"
        self._write(self._state, (LogEvent("error", "flood", text, (("site", site),)),))
        if self._access is not None:
            muted = self._muted | {site: now + MUTE_S}
            self._serve_sites(self._access, self._allowances, muted)

    def _of_sites(self, sites: Iterable[str]) -> Topology:
        named = tuple(Site(name) for name in sorted(sites))
        return Topology(self._run.run_id, named, self._update_bytes, self._queue_type)

    def _queues(self) -> dict[str, str]:
        return {self._topology.update_queue(site): site.name for site in self._topology.sites}

    def _consume(self) -> Consumer:
        heard = [site for site in self._topology.sites if site.name not in self._muted]
        return self._broker.consume_updates(self._topology, heard, PREFETCH)

    def _depths(self) -> None:
        try:
            depths = self._broker.depths(self._topology)
        except BrokerError:
            return  # nothing to show; publishing and receiving say what is wrong
        self._board.queues(depths)  # which knows whether the store listens
        self._observe.queues(depths)

    def _sample(self) -> None:
        """Keep and show what versions have answered meanwhile."""
        samples, notes = self._sampler.collect()
        if notes:
            self._write(self._state, tuple(notes))
        if samples:
            self._samples.add(self._journal, samples)
            self._board.samples(self._samples.shown)

    # one step of the core, made durable, then told

    def _step(self, event: CoordinatorEvent, arrival: Arrival | None = None) -> tuple[Action, ...]:
        done = machine.step(self._plan, self._state, event, self._clock())
        self._write(done.state, done.actions, arrival)
        return done.actions

    def _write(
        self, after: CoordinatorState, actions: tuple[Action, ...], arrival: Arrival | None = None
    ) -> None:
        now, before = self._clock(), self._state
        commits = [action for action in actions if isinstance(action, CommitVersion)]
        made = {c.version: write_version(c, self._versions, self._spool, now) for c in commits}
        self._summaries += made.values()
        told = [event_text.describe(action, before.version, made) for action in actions]
        notes = tuple(note for note in told if note is not None)
        records = tuple(a for a in actions if not isinstance(a, LogEvent)) + notes
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
        for summary in made.values():  # the row is fenced: from here on the number is its own
            self._versions.place(summary.version, summary.sha256)
        self._state = after
        self._observe.stepped(before, after, actions, made, self._clock() - now)
        self._clean(actions, upload)
        self._tell(actions, made, [event_text.to_event(note, now) for note in notes])

    def _frames(self, actions: tuple[Action, ...], now: float) -> dict[str, bytes]:
        """The message of every task that is issued."""
        frames = {}
        for action in actions:
            if isinstance(action, IssueTask):
                task = tasks.task_message(
                    self._plan, self._run.template, action.task, self._summaries, now
                )
                frames[action.task.task_id] = pack(task)
        return frames

    def _clean(self, actions: tuple[Action, ...], upload: str) -> None:
        """Remove the files that the transaction has made superfluous."""
        accepted = {a.update.upload for a in actions if isinstance(a, AcceptUpdate)}
        if upload and upload not in accepted:
            self._spool.drop(upload)
        for action in actions:
            if isinstance(action, CommitVersion):
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
            self._board.version(summary)
            self._sampler.offer(summary.version)
        self._flush()
        for action in actions:
            if task_id := _settled(action):
                self._board.receipt(task_id)
            if isinstance(action, AdmitClient | DismissClient):
                self._board.membership(action)
            if isinstance(action, FinishRun):
                self._finished = action
        if events:
            self._board.events(events)

    def _flush(self) -> None:
        """Publish the outbox; what the broker does not confirm stays there."""
        for entry in self._journal.outbox():
            message = Message(entry.frame, message_id=entry.task_id)
            try:
                self._broker.publish_task(self._topology, Site(entry.site), message)
            except BrokerError as error:
                self._broker_failed(error)
                return
            self._journal.mark_sent([entry.id])

    def _broker_failed(self, error: BrokerError) -> None:
        note = LogEvent("warning", "broker", str(error)[:500])
        self._listen(event_text.to_event(note, self._clock()))

    # the disk

    def _sweep(self) -> None:
        """Finish the rename that a crash interrupted; remove what it left without a row."""
        with self._journal.fenced():
            self._versions.roll_forward(self._journal.version_digests())
            self._versions.sweep(self._state.version)
            self._spool.sweep(
                self._journal.unapplied_uploads() | self._journal.unfinished_uploads().keys()
            )

    def _retain(self) -> None:
        in_use = in_store(self._plan, self._state)
        kept = retention.versions_to_keep(
            self._plan, self._summaries, self._run.keep_versions, in_use
        )
        with self._journal.fenced():  # else a successor's versions would not be kept
            self._versions.retain(kept)
        self._board.forget(in_use, self._summaries)

    def _end(self, finish: FinishRun, stop: Flag) -> RunOutcome:
        self._board.farewell(finish, self._state, self._summaries[-1], stop)
        if finish.complete:
            self._broker.delete(self._topology)
            self._ingest.expire(math.inf)  # nothing can complete them any more
            self._sampler.finish(stop)
        self._sample()
        version = self._state.version
        return RunOutcome(finish.complete, finish.reason, version, finish.failed, self._complete)


def _settled(action: Action) -> str | None:
    """The task whose receipt an action has made, or asks to publish again."""
    match action:
        case AcceptUpdate():
            return action.update.task_id
        case RepeatReceipt() | CloseTask():
            return action.task_id
    return None

"""The live driver of the core: one thread between the update queues, the journal and the store.

Each turn takes one message or one pulse, asks `coordinator/core.py` what follows, makes that
durable, and only then tells anyone: outbox to the broker, ack of the message, status to the store
(`coordinator/board.py`). The embedded demo and the service over RabbitMQ and Redis are this class.

On an update's way: `ingest` → `core` (`admission`, `contribution`, `staleness`) → `commit`
(`aggregation`) → `journal` → `board` and `status`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event as Flag

from broker.protocol import Broker, Consumer, Delivery, Message, Site, Topology
from common.clock import Clock
from common.errors import BrokerError, RunError, WireError
from common.records import Event, VersionSummary
from common.store import Store
from common.wire import pack
from coordinator import core, narration, retention, tasks
from coordinator.board import Board, in_store
from coordinator.commit import carry_out
from coordinator.events import (
    Accept,
    Action,
    Close,
    Commit,
    CoordinatorEvent,
    Discard,
    Drain,
    Finish,
    Issue,
    Note,
    Repeat,
)
from coordinator.ingest import Arrival, Ingest
from coordinator.journal import Journal
from coordinator.ledger import Ledger
from coordinator.recovery import recover
from coordinator.run import Run
from coordinator.spool import Spool
from coordinator.state import State
from coordinator.versions import Versions

PULSE_S = 1.0  # heartbeats are read, time-outs looked at, status written
POLL_S = 0.2  # longest wait for a message; bounds the reaction to a stop
PREFETCH = 4  # chunks in flight from each site's queue


@dataclass(frozen=True)
class Outcome:
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
        listen: Callable[[Event], None],
        volatile: bool = False,
    ) -> None:
        """Take the run over; the constructor returns with the journal's state loaded.

        Args:
            run: The opened run directory.
            broker: Connected.
            store: May be out of reach for a while.
            clock: Seconds since the epoch.
            users: The broker user of each site.
            listen: Told every event, in this thread.
            volatile: The broker started empty: whatever was on its queues is lost.
        """
        self._run, self._plan = run, run.plan
        self._broker, self._clock = broker, clock
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
        self._board = Board(run, store, clock, listen)
        lease = 0.0 if volatile else run.plan.schedule.lease_s
        self._state: State = recover(self._plan, self._journal, clock(), lease)
        self._complete = self._state.version >= self._plan.total_versions
        self._summaries = self._journal.versions()
        self._finished: Finish | None = None
        self._pulsed = 0.0

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
        consumer = self._broker.consume_updates(self._topology, self._topology.sites, PREFETCH)
        try:
            while self._finished is None:
                self._turn(consumer, stop)
        except RunError:
            self._journal.check()  # a successor removes files that this one was still to read
            raise
        finally:
            consumer.close()
        return self._end(self._finished, stop)

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
            self._reject(consumer, delivery, reasons[0])
        else:
            consumer.ack(delivery)

    def _dead(self, consumer: Consumer, delivery: Delivery, site: str, reason: str) -> None:
        text = f"a message of site {site} is dead-lettered: {reason}"[:500]
        self._write(self._state, (Note("warning", "dead-letter", text, (("site", site),)),))
        self._reject(consumer, delivery, reason)

    def _reject(self, consumer: Consumer, delivery: Delivery, reason: str) -> None:
        try:
            consumer.reject(delivery, reason)
        except BrokerError as error:  # a broker that restarts must not end the run
            self._broker_failed(error)
            consumer.requeue(delivery)

    def _pulse(self, now: float) -> None:
        self._journal.check()
        self._ingest.expire(now)
        self._flush()
        self._step(self._board.beats(self._state))
        self._board.live(self._state, self._summaries[-1])
        if self._board.up:
            self._depths()

    def _depths(self) -> None:
        try:
            depths = self._broker.depths(self._topology)
        except BrokerError:
            return  # nothing to show; publishing and receiving say what is wrong
        self._board.queues(depths)

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
        for summary in made.values():  # the row is fenced: from here on the number is its own
            self._versions.place(summary.version, summary.sha256)
        self._state = after
        self._clean(actions, upload)
        self._tell(actions, made, [narration.event(note, now) for note in notes])

    def _frames(self, actions: tuple[Action, ...], now: float) -> dict[str, bytes]:
        """The message of every task that is issued."""
        frames = {}
        for action in actions:
            if isinstance(action, Issue):
                task = tasks.message(
                    self._plan, self._run.template, action.task, self._summaries, now
                )
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
            self._board.version(summary)
        self._flush()
        for action in actions:
            if task_id := _settled(action):
                self._board.receipt(task_id)
            if isinstance(action, Finish):
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
        note = Note("warning", "broker", str(error)[:500])
        self._listen(narration.event(note, self._clock()))

    # the disk

    def _sweep(self) -> None:
        """Finish the rename that a crash interrupted; remove what it left without a row."""
        with self._journal.fenced():
            self._versions.roll_forward(self._journal.contents())
            self._versions.sweep(self._state.version)
            self._spool.sweep(self._journal.waiting() | self._journal.uploads().keys())

    def _retain(self) -> None:
        in_use = in_store(self._plan, self._state)
        kept = retention.keep(self._plan, self._summaries, self._run.keep_versions, in_use)
        with self._journal.fenced():  # else a successor's versions would not be kept
            self._versions.retain(kept)
        self._board.forget(in_use, self._summaries)

    def _end(self, finish: Finish, stop: Flag) -> Outcome:
        self._board.farewell(finish, self._state, self._summaries[-1], stop)
        if finish.complete:
            self._broker.delete(self._topology)
            self._ingest.expire(math.inf)  # nothing can complete them any more
        version = self._state.version
        return Outcome(finish.complete, finish.reason, version, finish.failed, self._complete)


def _settled(action: Action) -> str | None:
    """The task whose receipt an action has made, or asks to publish again."""
    match action:
        case Accept():
            return action.update.task_id
        case Repeat() | Close():
            return action.task_id
    return None

"""Driver of the core: one thread between the update queues, the journal and the store.

Each turn handles one message, or does the work that is due every second. `core/machine.py` decides,
the decision is made durable, and only then is anything visible outside: tasks go to the broker, the
message is acked, the store is written. The embedded demo and the service over RabbitMQ and Redis
run this same class.

On the path of an update: `ingest/site_queues.py` → here → `ingest/ingest.py` → `core/machine.py`
(`core/admission.py`, `aggregation/`) → `storage/step_writer.py` (`storage/commit.py`,
`storage/journal.py`) → `publish/store_publisher.py`.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event as Flag

from broker.protocol import UPDATE_QUEUE_BYTES, Broker, BrokerBlocked, Message, QueueType
from common.clock import Clock
from common.errors import BrokerError, RunError, WireError
from common.protocol.feed import Event
from common.protocol.kinds import EventKind
from common.protocol.layout import TensorLayout
from common.store.store import Store
from coordinator.aggregation.noise import NoiseSeeds, secret_seed
from coordinator.core import event_text, machine
from coordinator.core.events import (
    MAX_TEXT,
    AcceptEvaluation,
    AcceptUpdate,
    Action,
    AdmitClient,
    CloseEvaluation,
    CloseTask,
    CommandReceived,
    CoordinatorEvent,
    DiscardMessage,
    DismissClient,
    EventLevel,
    FinishRun,
    RepeatReceipt,
    ReplyToCommand,
    RequestScores,
    ScoresArrived,
    SiteRevoked,
    StopRequested,
    log_event,
)
from coordinator.core.state import CoordinatorState
from coordinator.cosine_scores import CosineScores
from coordinator.ingest.ingest import Ingest
from coordinator.ingest.site_queues import FLOOD_MESSAGES, MUTE_S, SiteMessage, SiteQueues
from coordinator.observer import CoordinatorObserver
from coordinator.plugin_source import PluginSource
from coordinator.publish import rows
from coordinator.publish.delivery import DeliveryPublisher
from coordinator.publish.store_publisher import StorePublisher, versions_in_use
from coordinator.samples_source import SamplesSource
from coordinator.scores_source import ScoreRequest, ScoreSource
from coordinator.sites.credentials import SiteAccess
from coordinator.storage.candidates import Candidates
from coordinator.storage.evaluator_figures import append_figures
from coordinator.storage.journal_lock import JournalLockedError
from coordinator.storage.recovery import recover
from coordinator.storage.run import Run
from coordinator.storage.samples import SamplesFile
from coordinator.storage.spool import Spool
from coordinator.storage.step_writer import StepWriter, WrittenStep

TICK_S = 1.0
"""Seconds between two ticks: read heartbeats, check time-outs, publish the state."""
POLL_S = 0.2
"""Longest wait for a message, in seconds: bounds the reaction to a stop."""
TOO_EARLY = "the coordinator had not started yet: send the command again"


@dataclass(frozen=True)
class RunOutcome:
    """End of a coordinator."""

    complete: bool  # the plan is fulfilled
    reason: str  # for people
    version: int  # newest
    failed: bool = False  # the run cannot continue
    was_complete: bool = False  # the plan was fulfilled before this coordinator started


class Service:
    """Coordinator of one run."""

    def __init__(
        self,
        run: Run,
        broker: Broker,
        store: Store,
        clock: Clock,
        *,
        users: Mapping[str, str],
        on_event: Callable[[Event], None],
        access: SiteAccess | None = None,
        volatile: bool = False,
        queue_type: QueueType = "classic",
        update_bytes: int = UPDATE_QUEUE_BYTES,
        metrics: CoordinatorObserver | None = None,
        samples: SamplesSource | None = None,
        scores: ScoreSource | None = None,
        delivery: DeliveryPublisher | None = None,
        evaluators: PluginSource | None = None,
        trackers: PluginSource | None = None,
        noise_seeds: NoiseSeeds = secret_seed,
    ) -> None:
        """Store the arguments; `serve` takes the run over.

        Args:
            run: The opened run directory.
            broker: Connected broker.
            store: Store, which may be out of reach for a while.
            clock: Seconds since the epoch.
            users: Broker user of each site whose clients were dealt rows here.
            on_event: Called with every event, in the thread of `serve`.
            access: Invited sites; None if sites cannot be invited.
            volatile: The broker started empty, so messages of an earlier coordinator are lost.
            queue_type: Type of the queues to declare.
            update_bytes: Quota of each site's update queue, in bytes.
            metrics: Hooks for metrics, called in the thread of `serve`.
            samples: Source of live samples.
            scores: Source of the scores of contribution source `server`.
            delivery: Publisher of the result for invited sites.
            evaluators: Plug-ins that evaluate versions.
            trackers: Plug-ins that follow the figures of the run.
            noise_seeds: Seeds of the noise of differential privacy; anything but the default is
                for simulations and tests.
        """
        self._run, self._plan, self._journal = run, run.plan, run.journal
        self._clock, self._on_event, self._access = clock, on_event, access
        self._lease_s = 0.0 if volatile else run.plan.schedule.lease_s
        self._metrics = metrics or CoordinatorObserver()
        self._queues = SiteQueues(broker, run.run_id, users, queue_type, update_bytes)
        spool = Spool(run.directory / "spool")
        self._ingest = Ingest(run.journal, spool)
        candidates = Candidates(run.versions, spool, run.forms)
        self._writer = StepWriter(run, spool, candidates, noise_seeds)
        self._publisher = StorePublisher(run, store, clock, on_event, candidates)
        self._samples, self._samples_file = samples or SamplesSource(), SamplesFile(run.directory)
        if run.plan.aggregation.contribution_source == "cosine":
            scores = CosineScores(run.versions, spool, run.rule)
        self._scores = scores or ScoreSource()
        self._delivery = delivery
        self._evaluators, self._trackers = evaluators or PluginSource(), trackers or PluginSource()
        self._state = CoordinatorState()
        self._finish: FinishRun | None = None
        self._ticked_at = 0.0
        self._takes_commands = False
        self._queue_problem = self._blocked = ""

    def serve(self, stop: Flag) -> RunOutcome:
        """Run until the plan is complete, or `stop` is set; then commit the buffer.

        Raises:
            FencedError: Another coordinator took over.
            BrokerError: The broker refuses, or stays out of reach past its deadline.
            RunError: The disk refuses.
        """
        self._take_over(stop)
        self._start()
        was_complete = machine.is_complete(self._plan, self._state, self._clock())
        try:
            finish = self._loop(stop)
            self._end(finish, stop)
        finally:
            for source in (self._samples, self._scores, self._evaluators, self._trackers):
                source.close()
        return RunOutcome(
            finish.complete, finish.reason, self._state.version, finish.failed, was_complete
        )

    def _take_over(self, stop: Flag) -> None:
        """Fence off every other coordinator; wait a lease for one that holds the journal."""
        deadline = time.monotonic() + self._plan.schedule.lease_s
        waiting = False

        def keep_trying(error: JournalLockedError) -> bool:
            nonlocal waiting
            if not waiting:
                waiting = True
                text = f"waits {self._plan.schedule.lease_s:.0f} s at most: {error}"
                entry = log_event("warning", EventKind.TAKEOVER, text[:MAX_TEXT])
                self._on_event(event_text.to_event(entry, self._clock()))
            return not stop.is_set() and time.monotonic() < deadline

        self._journal.take_over(keep_trying)

    def _start(self) -> None:
        """Recover the state of the run from its journal, and begin to receive."""
        self._state = recover(self._plan, self._journal, self._clock(), self._lease_s)
        self._writer.start(self._state.version)
        layout = TensorLayout.of(self._run.versions.read(0))
        self._ingest.start(
            layout,
            schema1=self._run.template.layout is None,
            update_layout=self._run.rule.update_layout,
        )
        answers = self._samples_file.read()
        self._publisher.publish_samples(self._samples_file.displayed)
        self._queues.open()
        self._samples.start(self._state.version, answers)
        self._scores.start()
        self._evaluators.start()
        self._trackers.start()

    def _loop(self, stop: Flag) -> FinishRun:
        try:
            while self._finish is None:
                self._turn(stop)
            return self._finish
        except RunError:
            with contextlib.suppress(RunError):  # the same disk
                self._journal.check_epoch()  # a successor may have removed files that were needed
            raise
        finally:
            self._queues.close()

    def _turn(self, stop: Flag) -> None:
        self._metrics.on_turn()
        if stop.is_set():
            self._step(StopRequested())
            return
        now = self._clock()
        if now - self._ticked_at >= TICK_S:
            self._ticked_at = now
            self._tick(now)
        message = None if self._finish else self._queues.receive(POLL_S)
        if message is not None:
            self._handle(message)

    def _tick(self, now: float) -> None:
        self._journal.check_epoch()
        self._ingest.expire(now)
        self._update_sites(now)
        self._verify_queues(now)
        # First, because a store that comes back empty gets its adapters again, then their tasks.
        self._step(self._publisher.read_heartbeats(self._state))
        self._collect_scores()
        if problem := self._publisher.base_model_problem():
            self._record(log_event("warning", EventKind.BASE_MODEL, problem))
        self._carry_out_commands()
        newest = self._journal.version(self._state.version)
        problem = self._report_alarm() or self._queue_problem
        self._publisher.publish_state(self._state, newest, problem)
        self._collect_samples()
        self._collect_from_plugins()
        self._publish_depths()
        self._metrics.on_tick(self._state, self._publisher.is_up, problem)

    def _end(self, finish: FinishRun, stop: Flag) -> None:
        if finish.complete and self._delivery is not None and self._state.joined:
            self._record(*self._delivery.publish(stop))  # workers look for it at the end
        newest = self._journal.version(self._state.version)
        self._publisher.publish_end(finish, self._state, newest, stop)
        if finish.complete:
            self._queues.delete()
            self._ingest.expire(math.inf)  # unfinished uploads can no longer be completed
            self._samples.finish(stop)
            self._evaluators.finish("finished", stop)
        self._collect_samples()
        self._collect_from_plugins()  # trackers get the last figures, too
        self._trackers.finish("finished" if finish.complete else "stopped", stop)
        self._collect_from_plugins()

    # messages of sites

    def _handle(self, message: SiteMessage) -> None:
        """Pass a message to the core, and ack it once its effects are durable."""
        received = message.delivery.message
        try:
            arrival = self._ingest.process(received, message.site, message.user, self._clock())
        except WireError as error:
            self._dead_letter(message, error.what)
            return
        actions = self._step(arrival.event, arrival.upload) if arrival.event else ()
        reasons = [a.rejection.reason for a in actions if isinstance(a, DiscardMessage)]
        if reasons:
            self._reject(message, reasons[0])
        else:
            self._queues.ack(message)
        dismissed = any(isinstance(a, DismissClient) and not a.left for a in actions)
        if reasons or dismissed:
            self._count_refused(message.site)

    def _dead_letter(self, message: SiteMessage, reason: str) -> None:
        site = message.site
        text = f"a message of site {site} is dead-lettered: {reason}"
        self._record(log_event("warning", EventKind.DEAD_LETTER, text, site=site))
        self._reject(message, reason)
        self._count_refused(site)

    def _count_refused(self, site: str) -> None:
        """Count a message that had no effect, and mute its site if there are too many."""
        if self._queues.count_refused(site, self._clock()):
            text = (
                f"site {site} sent {FLOOD_MESSAGES} messages that had to be refused: its queue is"
                f" not read for {MUTE_S / 60:.0f} minutes; `fccl revoke {site}` ends its access"
            )
            self._record(log_event("error", EventKind.FLOOD, text, site=site))

    def _reject(self, message: SiteMessage, reason: str) -> None:
        try:
            self._queues.reject(message, reason)
        except BrokerError as error:  # a broker that restarts must not end the run
            self._warn_of_broker(error)
            self._queues.requeue(message)

    # due every second

    def _update_sites(self, now: float) -> None:
        """Start to serve sites that have joined, and stop serving those that were revoked."""
        if self._access is None:
            return
        self._record(*self._access.poll())
        allowances = self._access.allowances()
        members = {client.site for client in self._state.joined.values()}
        revoked = (members | self._ingest.allowances.keys()) - allowances.keys()
        try:
            self._queues.serve({s: self._access.broker_user(s) for s in allowances}, revoked, now)
        except BrokerError as error:  # tried again at the next tick
            self._warn_of_broker(error)
            return
        self._ingest.allowances = allowances
        for site in sorted(revoked):
            self._step(SiteRevoked(site))

    def _verify_queues(self, now: float) -> None:
        if not self._queues.check_is_due(now):
            return
        try:
            names = self._queues.repair(now)
        except BrokerError as error:
            self._queue_problem = f"the queues cannot be verified: {error.what}"
            return
        self._queue_problem = ""
        if names:
            text = f"RabbitMQ had lost declarations, which were made again: {', '.join(names)}"
            self._record(log_event("warning", EventKind.REPAIRED, text))
            self._metrics.on_repair(names)

    def _report_alarm(self) -> str:
        """Return why the broker takes no tasks, and report when that begins and ends."""
        blocked = self._queues.blocked
        if bool(blocked) != bool(self._blocked):
            text = blocked or "RabbitMQ takes messages again"
            level: EventLevel = "warning" if blocked else "info"
            self._record(log_event(level, EventKind.BROKER, text))
        self._blocked = blocked
        return blocked

    def _publish_tasks(self) -> None:
        """Publish the journal's outbox; entries that the broker does not confirm stay there."""
        try:
            for entry in self._journal.outbox():
                message = Message(entry.frame, message_id=entry.task_id)
                self._queues.publish_task(entry.site, message)
                self._journal.mark_sent([entry.id])
        except BrokerBlocked:
            pass  # the next tick reports it
        except BrokerError as error:
            self._warn_of_broker(error)

    def _carry_out_commands(self) -> None:
        """Carry out operators' commands; one that was done before a crash is only answered again.

        Commands from before this coordinator's start may be hours old, and are refused.
        """
        for command in self._publisher.read_commands():
            if self._finish is None and self._journal.command_reply(command.command_id) is None:
                if self._takes_commands:
                    self._step(CommandReceived(command))
                else:
                    self._record(ReplyToCommand(command, TOO_EARLY))
            self._publisher.answer_command(command)
        self._takes_commands = self._takes_commands or self._publisher.is_up

    def _collect_samples(self) -> None:
        answers, events = self._samples.collect()
        self._record(*events)
        if answers:
            self._samples_file.append(self._journal, answers)
            self._publisher.publish_samples(self._samples_file.displayed)

    def _collect_from_plugins(self) -> None:
        figures, events = self._evaluators.collect()
        if figures:
            append_figures(self._run.directory, self._journal, figures)
            self._publisher.publish_evaluators(figures)
        described = [event_text.describe_figures(each) for each in figures]
        self._record(*described, *events, *self._trackers.collect()[1])

    def _collect_scores(self) -> None:
        scores, events = self._scores.collect()
        self._record(*events)
        if scores and self._finish is None:
            self._step(ScoresArrived(tuple(scores)))

    def _publish_depths(self) -> None:
        try:
            depths = self._queues.depths()
        except BrokerError:
            return  # reported by publishing and receiving
        self._publisher.publish_depths(depths)
        self._metrics.on_depths(depths)

    # steps of the core

    def _step(self, event: CoordinatorEvent, upload: str = "") -> tuple[Action, ...]:
        """Let the core decide, make the decision durable, then publish it."""
        decided = machine.step(self._plan, self._state, event, self._clock())
        self._write(decided.state, decided.actions, upload)
        requests = [action for action in decided.actions if isinstance(action, RequestScores)]
        for action in requests:
            self._scores.request([ScoreRequest.of(update) for update in action.updates])
        if requests:
            self._collect_scores()  # those of `cosine` are there already
        return decided.actions

    def _record(self, *actions: Action) -> None:
        """Journal and publish actions that leave the state as it is."""
        if actions:
            self._write(self._state, actions)

    def _write(
        self, after: CoordinatorState, actions: tuple[Action, ...], upload: str = ""
    ) -> None:
        now, before = self._clock(), self._state
        written = self._writer.write(before, after, actions, now, upload)
        self._state = after
        seconds = self._clock() - now
        self._metrics.on_step(before, after, actions, written.summaries, seconds)
        in_use = versions_in_use(self._plan, after) if written.summaries else set[int]()
        self._writer.clean_up(actions, upload, in_use | {u.base_version for u in after.buffer})
        if written.summaries:
            self._publisher.drop_adapters(in_use)
        self._publish_step(actions, written)

    def _publish_step(self, actions: tuple[Action, ...], written: WrittenStep) -> None:
        for event in written.events:
            self._on_event(event)
        self._writer.append_lines(written, actions)
        for summary in written.summaries.values():  # the adapter is there before a task names it
            self._publisher.publish_version(summary)
            self._samples.offer(summary.version)
        self._publisher.publish_candidates(self._state)
        self._publish_tasks()
        for action in actions:
            self._publish_action(action)
        if rows.changes_evaluations(actions):
            self._publisher.publish_evaluations()
        if written.events:
            self._publisher.publish_events(written.events)

    def _publish_action(self, action: Action) -> None:
        match action:
            case AcceptUpdate(update=update):
                self._publisher.publish_receipt(update.task_id)
            case AcceptEvaluation(evaluation=evaluation):
                self._publisher.publish_receipt(evaluation.task_id)
            case RepeatReceipt() | CloseTask() | CloseEvaluation():
                self._publisher.publish_receipt(action.task_id)
            case AdmitClient() | DismissClient():
                self._publisher.publish_membership(action)
            case FinishRun():
                self._finish = action

    def _warn_of_broker(self, error: BrokerError) -> None:
        """Report an error of the broker; not journaled, since it may recur every second."""
        entry = log_event("warning", EventKind.BROKER, str(error))
        self._on_event(event_text.to_event(entry, self._clock()))

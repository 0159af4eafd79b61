"""Publisher of everything that the coordinator puts into the store.

The run continues without the store: publications are skipped while it is out of reach, and when it
answers again, or has lost data, everything is published again from the run directory. The readers
are the workers (adapter, receipts, version pointer) and `common/store/view.py`.

Last file of the coordinator on the path of an update: after `coordinator/storage/journal.py` has
recorded it, the receipt and the new version are published here, where the site's worker reads them
(`worker/publisher.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import partial
from threading import Event as Flag

from broker.protocol import QueueDepth
from common.clock import Clock
from common.errors import StoreError, WireError
from common.protocol.commands import Command
from common.protocol.evaluations import EvaluatorFigures
from common.protocol.feed import Event
from common.protocol.kinds import EventKind
from common.protocol.tasks import BlobRef
from common.protocol.versions import SampleAnswer, VersionSummary
from common.protocol.wire import pack, unpack
from common.run_directory.evaluator_figures import read_evaluator_figures
from common.store.heartbeats import MAX_WORKERS_PER_SITE
from common.store.store import Store
from common.store.view import RunInfo, RunStatus
from coordinator.core import event_text, tasks
from coordinator.core.evaluations import versions_needed
from coordinator.core.events import (
    MAX_TEXT,
    AdmitClient,
    DismissClient,
    EventLevel,
    FinishRun,
    HeartbeatsRead,
    WorkerSignal,
    log_event,
)
from coordinator.core.state import BufferedUpdate, CoordinatorState, Plan
from coordinator.publish import rows
from coordinator.publish.base_model_server import BaseModelServer
from coordinator.publish.site_plan import site_plan
from coordinator.publish.stall import describe_stall
from coordinator.storage.candidates import Candidates, candidates_in_use
from coordinator.storage.run import Run

END_TIMEOUT_S = 30.0
"""Seconds for which the end of a run is retried, because workers end only when they read it."""
RETRY_S = 1.0
CHECK_S = 30.0
"""Seconds between two checks that all adapters are in the store."""
CANDIDATE_TTL_S = 600
"""Seconds after the deadline of an evaluation until its candidate expires."""
RESTORED_RECEIPTS = 1000
RESTORED_EVENTS = 200


def versions_in_use(plan: Plan, state: CoordinatorState) -> set[int]:
    """Return the newest version, and those that tasks and evaluations name."""
    bases = {base for task in state.tasks.values() for base in task.bases}
    bases |= versions_needed(plan, state)
    reference = plan.reference_version(plan.phase_of(state.version))
    return bases | {state.version} | (set() if reference is None else {reference})


class StorePublisher:
    """Publisher of one run.

    No public method raises `StoreError`: loss and return of the store are reported as events.
    """

    def __init__(
        self,
        run: Run,
        store: Store,
        clock: Clock,
        on_event: Callable[[Event], None],
        candidates: Candidates,
    ) -> None:
        self._run, self._run_id, self._candidates = run, run.run_id, candidates
        self._store, self._clock, self._on_event = store, clock, on_event
        self._base_model = BaseModelServer(
            store, run.run_id, run.base_path, run.template.base.digest
        )
        self._heartbeats = store.heartbeat_reader(run.run_id)
        self._crowded: frozenset[str] = frozenset()  # sites that were reported
        self._started_at = clock()
        self._published: set[int] = set()  # versions whose adapter is in the store
        self._candidate_refs: dict[str, BlobRef] = {}  # in the store, by the task of the update
        self._up: bool | None = None  # None until the store was first tried
        self._next_check = 0.0
        self._waiting = False
        self._stalled = False
        self._evaluations_changed = False
        self._samples: Sequence[SampleAnswer] = ()

    @property
    def is_up(self) -> bool:
        """Result of the last access to the store."""
        return bool(self._up)

    # reading

    def read_heartbeats(self, state: CoordinatorState) -> HeartbeatsRead:
        """Return the signals of all live workers.

        To be called at every tick, also while the store is lost, because it detects the return.
        """
        try:
            self._restore_if_lost(state)
            sites = {client.site for client in state.members(self._run.plan).values()}
            heartbeats = self._heartbeats.read(sites)
            self._base_model.answer(heartbeats)
        except StoreError as error:
            self._lost(error)
            return HeartbeatsRead((), store_up=False)
        self._report_crowded_sites()
        signals = (
            WorkerSignal(
                h.site, h.task_id is not None, h.task_id, h.wishes, h.rests_until is not None
            )
            for h in heartbeats
        )
        return HeartbeatsRead(tuple(signals))

    def base_model_problem(self) -> str:
        """Return a new reason why workers cannot get the base model; empty if there is none."""
        return self._base_model.new_problem()

    def read_commands(self) -> list[Command]:
        """Return the operators' commands; each stays in the store until `answer_command`."""
        commands: list[Command] = []
        try:
            for raw in self._store.commands(self._run_id) if self._up else ():
                try:
                    commands.append(unpack(Command, raw)[0])
                except WireError as error:
                    text = f"a command cannot be read: {error.what}"
                    self._report("warning", EventKind.COMMAND, text)
                    self._store.drop_commands(self._run_id, 1)
                    return commands  # the commands behind it are read at the next tick
        except StoreError as error:
            self._lost(error)
        return commands

    # publishing

    def answer_command(self, command: Command) -> None:
        """Publish the journal's reply to the oldest command, and remove the command."""
        reply = self._run.journal.command_reply(command.command_id)
        if reply is None:
            return
        raw = pack(reply)
        self._try(lambda: self._store.put_reply(self._run_id, command.command_id, raw))
        self._try(lambda: self._store.drop_commands(self._run_id, 1))

    def publish_state(
        self, state: CoordinatorState, newest: VersionSummary, problem: str = ""
    ) -> None:
        """Publish the status; report as an event when the run starts or stops to lack workers.

        `problem` is the reason why the run cannot continue, if any; it replaces the detail.
        """
        info = rows.run_info(self._run, state, self._started_at, self._clock())
        stall = self._find_stall(state)
        parts = [problem or info.detail, stall, *map(_crowding, sorted(self._crowded))]
        detail = "; ".join(filter(None, parts))
        state_of_run: RunStatus = "waiting" if problem and info.status == "running" else info.status
        status = info.model_copy(update={"detail": detail[:MAX_TEXT], "status": state_of_run})
        self._try(lambda: self._put_state(status, state, newest))
        # The core reports a run that waits for more clients than one.
        waiting = info.status == "waiting" and (info.min_clients or 1) <= 1
        if self._up and waiting != self._waiting:
            self._waiting = waiting
            self._report("info", EventKind.WORKERS, info.detail)

    def _find_stall(self, state: CoordinatorState) -> str:
        """Return why nobody makes progress; report it once as an event."""
        patience_s = self._run.plan.schedule.lease_s
        stall = describe_stall(
            self._run.journal, state, self._started_at, self._clock(), patience_s
        )
        if bool(stall) != self._stalled:
            self._stalled = bool(stall)
            if stall:
                self._report("warning", EventKind.STALLED, stall[:MAX_TEXT])
        return stall

    def publish_depths(self, depths: Mapping[str, QueueDepth]) -> None:
        table = rows.queue_rows(depths)
        self._try(lambda: self._store.put_table(self._run_id, "queues", table))

    def publish_samples(self, answers: Sequence[SampleAnswer]) -> None:
        """Replace the published answers to held-out prompts."""
        self._samples = answers
        self._try(self._put_samples)

    def publish_evaluations(self) -> None:
        """Replace the published evaluations of versions with the next status.

        Many clients answer at about the same time; the table is read from the journal as a whole.
        """
        self._evaluations_changed = True

    def publish_evaluators(self, figures: Sequence[EvaluatorFigures]) -> None:
        """Publish new figures of plug-in evaluators."""
        table = rows.evaluator_table(figures)
        self._try(lambda: self._store.put_rows(self._run_id, "evaluators", table))

    def publish_version(self, summary: VersionSummary) -> None:
        """Publish a new version: the adapter first, then the pointer to it."""
        self._try(lambda: self._put_version(summary))

    def publish_candidates(self, state: CoordinatorState) -> None:
        """Publish the adapters that open evaluations name as candidates, and drop the others.

        To be called before the evaluations are published.
        """
        wanted = candidates_in_use(state)
        for task_id in wanted.keys() - self._candidate_refs.keys():
            self._try(partial(self._put_candidate, wanted[task_id]))
        for task_id in self._candidate_refs.keys() - wanted.keys():
            self._try(partial(self._drop_candidate, task_id))

    def publish_receipt(self, task_id: str) -> None:
        """Publish the receipt of a task for the workers of its site."""
        receipt = self._run.journal.receipt(task_id)
        if receipt is not None:
            site = self._run.journal.site_of(task_id)
            self._try(lambda: self._store.put_receipt(self._run_id, site, receipt))

    def publish_membership(self, action: AdmitClient | DismissClient) -> None:
        self._try(lambda: self._put_membership(action))

    def publish_events(self, events: Iterable[Event]) -> None:
        self._try(lambda: self._store.append_events(self._run_id, events))

    def drop_adapters(self, in_use: Set[int]) -> None:
        """Remove the adapters of versions that are not in use."""
        unused = self._published - in_use
        for version in unused:
            self._try(partial(self._drop_adapter, self._run.journal.version(version)))
        if self._up:  # else they are still in the store, and are dropped later
            self._published -= unused

    def publish_end(
        self, finish: FinishRun, state: CoordinatorState, newest: VersionSummary, stop: Flag
    ) -> None:
        """Publish the end of the run; retry a lost store for a while, until `stop` is set."""
        status: RunStatus = "failed" if finish.failed else "stopped"
        if finish.complete:
            status = "finished"
        info = rows.run_info(self._run, state, self._started_at, self._clock())
        info = info.model_copy(update={"status": status, "detail": finish.reason})
        deadline = time.monotonic() + END_TIMEOUT_S
        while not self._end_is_published(info, state, newest):
            if time.monotonic() >= deadline or stop.wait(RETRY_S):
                text = f"the run is {status}, but the store is down: no worker ends"
                self._report("warning", EventKind.UNPUBLISHED, text)
                return

    def _end_is_published(
        self, info: RunInfo, state: CoordinatorState, newest: VersionSummary
    ) -> bool:
        try:
            self._restore_if_lost(state)
            self._put_state(info, state, newest)
        except StoreError as error:
            self._lost(error)
            return False
        return True

    # writing to the store; these raise StoreError

    def _put_state(self, info: RunInfo, state: CoordinatorState, newest: VersionSummary) -> None:
        self._store.set_info(self._run_id, pack(info))
        table = rows.client_rows(self._run.plan, state, newest, info.updated_at)
        self._store.put_table(self._run_id, "clients", table)
        if self._evaluations_changed:
            self._put_evaluations()

    def _put_samples(self) -> None:
        self._store.put_table(self._run_id, "samples", rows.sample_rows(self._samples))

    def _put_evaluations(self) -> None:
        table = rows.evaluation_table(rows.evaluations(self._run))
        self._store.put_table(self._run_id, "evaluations", table)
        self._evaluations_changed = False

    def _put_evaluators(self) -> None:
        table = rows.evaluator_table(read_evaluator_figures(self._run.directory))
        self._store.put_table(self._run_id, "evaluators", table)

    def _put_version(self, summary: VersionSummary) -> None:
        self._put_frames(summary.version)
        self._put_model(summary)
        self._store.put_summaries(self._run_id, [(summary.version, summary.model_dump_json())])
        self._store.set_version(self._run_id, summary.version)
        self._published.add(summary.version)

    def _put_frames(self, version: int) -> None:
        for frame in self._run.versions.frames(version):
            self._store.put_blob(self._run_id, frame)

    def _put_model(self, summary: VersionSummary) -> None:
        model = tasks.current_model(self._run.plan, self._run.template, summary)
        self._store.set_model(self._run_id, pack(model))

    def _put_membership(self, action: AdmitClient | DismissClient) -> None:
        self._store.put_membership(self._run_id, *rows.membership(action))

    def _put_candidate(self, update: BufferedUpdate) -> None:
        """Publish a candidate; it expires if a crash leaves it behind.

        The bytes of an update that changes nothing are its version's, and stay as they are.
        """
        ref = self._candidates.ref(update)
        if ref.sha256 not in self._published_digests():
            ttl_s = int(self._run.plan.evaluation.deadline_s) + CANDIDATE_TTL_S
            self._store.put_blob(self._run_id, self._candidates.frame(update), ttl_s)
        self._candidate_refs[update.task_id] = ref

    def _drop_candidate(self, task_id: str) -> None:
        """Remove a candidate, unless the same bytes are another one's, or a version's."""
        ref = self._candidate_refs[task_id]
        others = {each.sha256 for name, each in self._candidate_refs.items() if name != task_id}
        if ref.sha256 not in self._published_digests() | others:
            self._store.drop_blob(self._run_id, ref.sha256, ref.nbytes)
        del self._candidate_refs[task_id]

    def _published_digests(self) -> set[str]:
        return self._digests(self._published)

    def _digests(self, versions: Iterable[int]) -> set[str]:
        """Return the digests of all frames of versions."""
        return {blob.sha256 for each in versions for blob in self._run.journal.version(each).blobs}

    def _drop_adapter(self, summary: VersionSummary) -> None:
        for blob in summary.blobs:
            self._store.drop_blob(self._run_id, blob.sha256, blob.nbytes)

    # a store that was lost, or has lost data

    def _restore_if_lost(self, state: CoordinatorState) -> None:
        in_use = versions_in_use(self._run.plan, state)
        if self._up and self._is_intact(state.version, in_use):
            return
        self._run.journal.check_epoch()  # a successor's newer pointer must not be replaced
        self._restore(in_use)
        self._restore_candidates(state)
        if self._up is not None:
            lost = "the store had lost data of this run: published it again"
            text = lost if self._up else "the store answers again"
            self._report("warning", EventKind.RESTORED, text)
        self._up = True

    def _is_intact(self, version: int, in_use: Set[int]) -> bool:
        """Check that the store still holds what was published.

        A store may come back empty between two ticks, or without its last second of writes.
        """
        if self._store.get_version(self._run_id) != version:
            return False
        now = self._clock()
        if now < self._next_check:
            return True
        self._next_check = now + CHECK_S
        if self._store.get_run(self._run.name) is None:
            return False
        needed = self._digests(in_use)
        needed |= {ref.sha256 for ref in self._candidate_refs.values()}
        if (frozen := self._run.template.frozen) is not None:
            needed.add(frozen.sha256)
        return all(self._store.has_blob(self._run_id, sha256) for sha256 in needed)

    def _restore(self, in_use: Set[int]) -> None:
        store, run_id, journal = self._store, self._run_id, self._run.journal
        newest = journal.newest_version()
        self._put_samples()
        self._put_evaluations()
        self._put_evaluators()
        if store.summary_count(run_id) <= newest.version:
            lines = ((s.version, s.model_dump_json()) for s in journal.each_version())
            store.put_summaries(run_id, lines)
        if frozen := self._run.versions.frozen_frame():
            store.put_blob(run_id, frozen)
        for version in in_use | {newest.version}:
            self._put_frames(version)
        store.put_receipts(run_id, journal.receipts(RESTORED_RECEIPTS))
        for client in journal.joined_clients():
            self._put_membership(AdmitClient(client))
        if store.get_version(run_id) is None:  # else the feed is still there
            store.append_events(run_id, journal.events(RESTORED_EVENTS))
        self._put_model(newest)
        store.set_plan(run_id, pack(site_plan(self._run, newest.version)))
        store.set_version(run_id, newest.version)
        store.set_run(self._run.name, run_id)
        self._published |= in_use

    def _restore_candidates(self, state: CoordinatorState) -> None:
        self._candidate_refs.clear()
        for update in candidates_in_use(state).values():
            self._put_candidate(update)

    def _try(self, publish: Callable[[], None]) -> None:
        """Write to the store, unless it is known to be lost."""
        if not self._up:
            return
        try:
            publish()
        except StoreError as error:
            self._lost(error)

    def _report_crowded_sites(self) -> None:
        for site in sorted(self._heartbeats.crowded - self._crowded):
            text = f"{_crowding(site)}; `fccl revoke {site}` ends its access"
            self._report("warning", EventKind.FLOOD, text)
        self._crowded = self._heartbeats.crowded

    def _lost(self, error: StoreError) -> None:
        if self._up is not False:
            text = f"{error.what}: new tasks wait, updates are still accepted"
            self._report("warning", EventKind.DEGRADED, text)
        self._up = False

    def _report(self, level: EventLevel, kind: EventKind, text: str) -> None:
        self._on_event(event_text.to_event(log_event(level, kind, text), self._clock()))


def _crowding(site: str) -> str:
    return f"site {site} has more heartbeats in Redis than are read ({MAX_WORKERS_PER_SITE})"

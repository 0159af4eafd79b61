"""A worker's life in a run: take a task, train, leave the update to the publisher; again.

On an update's way: `broker` → here → `worker/trainer.py` → `common/protocol/codec.py` → `worker/spool.py` →
`worker/publisher.py`. A task is on the disk before it is acked, an update before its task is let
go; a killed worker goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag

from filelock import Timeout

from broker.protocol import LOCAL, Broker, Site, TakenTask, Topology
from common.clock import Clock
from common.config.config import IncrementalConfig
from common.errors import BrokerError, DataError, FcclError, ModelError, StoreError, WireError
from common.protocol import codec
from common.protocol.fields import MAX_LOSS
from common.protocol.heartbeat import Heartbeat
from common.protocol.tasks import TaskRefusal, TrainTask
from common.protocol.tensors import Tensors
from common.protocol.updates import TensorEntry, Update
from common.protocol.wire import unpack
from common.store.store import Store
from learning.models.base import ProgressCallback
from learning.training import device
from learning.training.device import Compute
from learning.training.loop import StepReport
from worker import error_feedback
from worker.data.references import References
from worker.data.shards import ClientData
from worker.error_feedback import Residual
from worker.events import EventCallback, WorkerEventKind
from worker.heartbeat import HeartbeatSender
from worker.incremental.learner import Callbacks, Learner, LearnerSettings
from worker.models.loaded import ModelCache
from worker.models.source import ModelSource
from worker.observer import Nobody, Observer
from worker.publisher import Publisher
from worker.site import run_discovery
from worker.site.enrolment import EnrolmentRequests
from worker.spool import Slot, claim_slot, client_lock, count_workers
from worker.trainer import MIN_LOSS, NO_START, Trainer

TAKE_S = 1.0  # longest wait for a task; bounds the reaction to a stop and to the end of the run
MAX_REFUSALS = 3  # in a row: then it is this worker that is broken, not the tasks
DRAIN_S = 15.0  # for publishing what is trained, when asked to stop


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker is given.

    Attributes:
        name: Of the run, as its coordinator calls it.
        site: Whose credential this worker uses.
        data: Directory with the clients' rows.
        state: Directory for tasks and updates in flight, and private client state.
        cache: Folder of base models.
        host: This machine's name; only informs.
        software: What this is; only informs.
    """

    name: str
    site: Site
    data: Path
    state: Path
    cache: Path
    host: str
    software: str


@dataclass(frozen=True)
class WorkerSummary:
    """What a worker did until it ended."""

    trained: int
    abandoned: int
    settled: int
    waiting: int
    reason: str


class Worker:
    """Serves one run from its beginning to its end."""

    def __init__(
        self,
        setting: WorkerSettings,
        run: str,
        broker: Broker,
        stores: tuple[Store, Store],
        compute: Compute,
        clock: Clock,
        *,
        told: EventCallback,
        report: ProgressCallback,
        on_step: Callable[[TrainTask, StepReport], None] = lambda task, step: None,
        refused: Callable[[], bool] = lambda: False,
        observe: Observer | None = None,
        incremental: IncrementalConfig | None = None,
    ) -> None:
        """Claim a slot and start beating.

        Raises:
            DataError: No client's rows are here: every task would be refused.
            RunError: The state directory cannot be written.

        Args:
            setting: What it is given.
            run: The run's id.
            broker: Connected as the site's user.
            stores: Two connections: one to work with, one for heartbeats.
            compute: From `learning.training.device.detect`.
            clock: Seconds since the epoch.
            told: Called with the kind and text of what happens, from several threads.
            report: Told of progress when a base model is fetched.
            on_step: Told of every local step.
            refused: Whether the broker refuses the site's credentials, looked up anew.
            observe: Told what was done, from several threads.
            incremental: How clients learn from their users between tasks; None: not at all.
        """
        self._setting, self._run, self._told = setting, run, told
        self._compute = compute
        self._broker, self._store = broker, stores[0]
        self._on_step = on_step
        self._observe = observe or Nobody()
        self._waiting_for = ""
        self._topology = Topology(run, (setting.site,))
        invited = setting.site != LOCAL
        data = ClientData(setting.data, setting.site.name if invited else None)
        if not data.clients():
            raise DataError(f"{setting.data} holds no client's rows", "name them with --data")
        self._slot: Slot = claim_slot(setting.state, run)
        self._source = ModelSource(self._store, run, setting.cache, report)
        self._models = ModelCache(compute)
        self._trainer = Trainer(data, self._models)
        first = Heartbeat(
            worker_id=f"{setting.host}-{self._slot.number}",
            site=setting.site.name,
            state="waiting",
            clients=data.clients(),
            device=self._share(),
            host=setting.host,
            software=setting.software,
        )
        self.worker_id = first.worker_id
        self._pulse = HeartbeatSender(stores[1], run, first, clock, self._observe.beaten)
        self._learner: Learner | None = None
        if incremental is not None and incremental.enabled:
            self._learner = Learner(
                LearnerSettings(setting.state, run, setting.name, data.clients()),
                incremental,
                data,
                self._models,
                self._source,
                self._slot,
                clock,
                Callbacks(
                    self._tell,
                    lambda rows, wishes: self._pulse.update(inbox=rows, wishes=wishes, now=True),
                    self._want,
                ),
            )
        self._publisher = Publisher(
            broker,
            self._store,
            self._topology,
            setting.site,
            self._slot,
            self._tell,
            self._observe,
            settled=self._learner.apply_receipt if self._learner else lambda pending, receipt: None,
        )
        self._enrolments = EnrolmentRequests(
            broker,
            self._store,
            self._topology,
            setting.site,
            data.counts() if invited else {},
            self.worker_id,
            setting.software,
            refused=refused,
            told=self._tell,
        )
        self._trained = self._abandoned = self._refused = 0

    def heartbeat(self) -> Heartbeat:
        """What it does now."""
        return self._pulse.heartbeat()

    def waiting(self) -> int:
        """Updates without a receipt."""
        return len(self._slot.pending())

    def serve(self, stop: Flag, abandon: Flag) -> WorkerSummary:
        """Work until the run ends, another run takes its name, or `stop` is set.

        Raises:
            DataError: Three tasks in a row could not be trained here, for want of rows.
            ModelError: The same, for want of the base model, or because training diverged.
            WireError: The same, because what the store holds is damaged.
            JoinError: The coordinator refuses a client of this invited site, or the site is out.

        Args:
            stop: Finish the task at hand, publish, end.
            abandon: Do not finish the task at hand; it stays on the disk.
        """
        reason = "stopped"
        try:
            if self._learner is not None:
                self._learner.start()
            while not stop.is_set():
                self._observe.turned()
                if ended := self._ended():
                    reason = ended
                    break
                self._enrolments.attend()
                if self._learner is not None:
                    self._learner.process_inboxes(stop)
                if (task := self._next()) is not None:
                    self._work(task, abandon)
        finally:
            self._pulse.update(state="stopping", now=True)
            self._publisher.stop(DRAIN_S)
            if self._learner is not None:
                self._learner.close()
            self._pulse.stop()
            waiting = len(self._slot.pending())
            self._slot.release()
        settled = self._publisher.settled
        return WorkerSummary(self._trained, self._abandoned, settled, waiting, reason)

    def _next(self) -> TrainTask | None:
        """The task left on the disk, or one from the queue."""
        if (kept := self._slot.task()) is not None:
            return kept
        taken = self._broker.take_task(self._topology, self._setting.site, TAKE_S)
        return None if taken is None else self._keep(taken)

    def _keep(self, taken: TakenTask) -> TrainTask | None:
        """On the disk first, then acked: nothing stays unacked while a model trains."""
        try:
            task, _ = unpack(TrainTask, taken.message.body)
            if task.run != self._run:
                raise WireError(f"a task of run {task.run}")
        except WireError as error:
            self._reject(taken, error.what)
            return None
        self._slot.put_task(task)
        taken.ack()
        return task

    def _reject(self, taken: TakenTask, reason: str) -> None:
        self._tell(WorkerEventKind.REJECTED, f"a message on the task queue: {reason}")
        try:
            taken.reject(reason)
        except BrokerError as error:  # it stays on the queue, for the next turn
            self._tell(WorkerEventKind.WAITING, error.what)
            taken.requeue()

    def _work(self, task: TrainTask, abandon: Flag) -> None:
        if any(pending.task_id == task.task_id for pending in self._slot.pending()):
            self._slot.drop_task()  # trained already, in an earlier attempt
            return
        self._pulse.update(device=self._share())
        self._pulse.begin(task, self._limit())
        try:
            finished = self._train(task, abandon)
        except StoreError as error:
            self._tell(WorkerEventKind.WAITING, error.what)
            abandon.wait(TAKE_S)
            finished = False
        except (DataError, ModelError, WireError) as error:
            finished = True
            self._refuse(task, error)
            if self._refused >= MAX_REFUSALS:
                self._slot.drop_task()
                raise
            abandon.wait(TAKE_S)  # another worker, which may have what is missing, comes first
        else:
            self._refused = 0
        finally:
            self._pulse.end()
        if finished:
            self._slot.drop_task()

    def _train(self, task: TrainTask, abandon: Flag) -> bool:
        """Whether the task is done with; False leaves it on the disk."""
        if self._store.get_receipt(self._run, self._setting.site.name, task.task_id) is not None:
            return True
        self._pulse.update(state="fetching")
        base = self._source.base(task.base, self._want, abandon)
        if base is None:
            return False
        adapter = self._source.adapter(task)
        if adapter is None:
            self._tell(
                WorkerEventKind.ABANDONED, f"{task.task_id}: version {task.base_version} is gone"
            )
            self._abandoned += 1
            self._observe.ended("abandoned")
            return True
        self._pulse.update(state="training", now=True)
        try:
            with client_lock(self._setting.state, self._run, task.client_id, TAKE_S):
                return self._learn(task, base, adapter, abandon)
        except Timeout:
            self._tell(
                WorkerEventKind.WAITING, f"another worker of this machine trains {task.client_id}"
            )
            return False

    def _learn(self, task: TrainTask, base: Path, adapter: Tensors, abandon: Flag) -> bool:
        """Train and leave the update to the publisher; the client's lock is held."""
        learner, start, references = self._learner, NO_START, self._references(task)
        if learner is not None:
            learner.note_version(task, adapter)
            start = learner.prepare_task(task, base, adapter, abandon)
        trained = None
        try:
            step = self._stepper(task, abandon)
            trained = self._trainer.train(task, base, adapter, references, step, start)
        finally:
            if trained is None and learner is not None:
                learner.release_task(task)
        if trained is None:
            return self._abandon(task, abandon)
        entries, data = _encoded(task, trained.delta, self._slot.residual(task))
        update = Update(
            task_id=task.task_id,
            attempt=task.attempt,
            client_id=task.client_id,
            worker_id=self.worker_id,
            phase=task.phase,
            base_version=task.base_version,
            stats=trained.stats,
            codec=task.update_codec,
            tensors=entries,
            sha256=codec.digest(data),
        )
        self._slot.put_update(update, data)
        self._publisher.wake()
        self._trained += 1
        stats = trained.stats
        self._observe.ended("trained", stats)
        text = f"{task.task_id} of {task.client_id} from version {task.base_version}:"
        self._tell(
            WorkerEventKind.TRAINED,
            f"{text} loss {stats.avg_loss:.3f}, {stats.train_seconds:.1f} s",
        )
        return True

    def _references(self, task: TrainTask) -> References:
        folder = self._slot.private(task.client_id)
        return References(folder, lambda: self._source.reference(task))

    def _abandon(self, task: TrainTask, abandon: Flag) -> bool:
        """After a stop the task stays on the disk; one that nobody wants any more goes."""
        self._abandoned += 1
        self._observe.ended("abandoned")
        if abandon.is_set():
            self._tell(WorkerEventKind.ABANDONED, f"{task.task_id} is left for the next start")
            return False
        self._tell(WorkerEventKind.ABANDONED, f"{task.task_id}: {self._pulse.unwanted()}")
        return True

    def _stepper(self, task: TrainTask, abandon: Flag) -> Callable[[StepReport], bool]:
        def step(report: StepReport) -> bool:
            self._pulse.update(
                progress=report.step / report.steps,
                tokens_per_s=report.tokens / max(report.seconds, 1e-9),
                last_loss=min(max(report.loss, MIN_LOSS), MAX_LOSS),
            )
            self._observe.turned()
            self._on_step(task, report)
            if self._learner is not None:
                self._learner.between_steps(task, abandon)
            return not abandon.is_set() and not self._pulse.unwanted()

        return step

    def _refuse(self, task: TrainTask, error: FcclError) -> None:
        self._refused += 1
        self._observe.ended("refused")
        reason = str(error)[:500]
        self._tell(WorkerEventKind.REFUSED, f"{task.task_id} of {task.client_id}: {reason}")
        refusal = TaskRefusal(
            task_id=task.task_id,
            attempt=task.attempt,
            client_id=task.client_id,
            worker_id=self.worker_id,
            reason=reason,
        )
        try:
            self._publisher.refuse(refusal)
        except BrokerError as failed:
            self._tell(WorkerEventKind.WAITING, failed.what)

    def _ended(self) -> str:
        """Why there will be no more tasks of this run; empty while there may be."""
        return run_discovery.end_reason(self._store, self._setting.name, self._run)

    def _limit(self) -> int:
        """The staleness over which the coordinator rejects."""
        try:
            info = run_discovery.read_info(self._store, self._run)
        except StoreError:
            info = None
        return info.max_staleness if info is not None else 2**31

    def _share(self) -> str:
        """Take this worker's part of the cores; what the heartbeat says of it."""
        threads = device.share_threads(self._compute, count_workers(self._setting.state))
        return f"{self._compute.device}, {threads} threads"

    def _want(self, digest: str | None) -> None:
        self._pulse.update(wants=digest, now=True)

    def _tell(self, kind: WorkerEventKind, text: str) -> None:
        if kind is WorkerEventKind.WAITING and text == self._waiting_for:
            return  # said already, and still so
        if kind is WorkerEventKind.WAITING and self._ended():
            return  # the queues of a run that is over are deleted
        self._waiting_for = text if kind is WorkerEventKind.WAITING else ""
        self._pulse.note(kind, text)
        self._told(kind, text)


def _encoded(
    task: TrainTask, delta: Tensors, residual: Residual
) -> tuple[tuple[TensorEntry, ...], bytes]:
    try:
        return error_feedback.encode(task.update_codec, delta, residual)
    except ValueError as error:
        raise ModelError(f"the delta of {task.task_id}: {error}", "lower phase.lr") from None

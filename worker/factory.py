"""Factory of workers: puts the parts of `worker.service.Worker` together and starts them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from broker.protocol import LOCAL, Broker, Site, Topology
from common.clock import Clock
from common.config.config import IncrementalConfig
from common.errors import DataError
from common.protocol.heartbeat import Heartbeat
from common.protocol.run_plan import RunPlan
from common.store.store import Store
from learning.progress import ProgressCallback
from learning.training import device
from learning.training.device import Compute
from learning.training.memory import FittedMemory, MemorySettings
from worker.data.shards import ClientData
from worker.evaluation_runner import EvaluationRunner
from worker.event_log import EventLog
from worker.events import EventCallback
from worker.heartbeat import HeartbeatSender
from worker.incremental.learner import Callbacks, Learner, LearnerSettings
from worker.models.loaded import ModelCache
from worker.models.source import ModelSource
from worker.observer import Observer
from worker.publisher import Publisher
from worker.service import Worker, WorkerParts
from worker.settings.bandwidth import Throttle
from worker.settings.rest import Rest
from worker.settings.settings import SiteSettings
from worker.settings.suitability import check_run
from worker.site import run_discovery
from worker.site.enrolment import CredentialsCheck, EnrolmentRequests
from worker.site.local_paths import LocalPaths
from worker.site.sent_log import SentLogWriter
from worker.spool import Slot, claim_slot, count_workers
from worker.task_runner import StepCallback, TaskRunner
from worker.task_source import TaskSource
from worker.task_support import TaskSupport
from worker.trainer import Trainer
from worker.version_evaluator import VersionEvaluator


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of a worker."""

    name: str  # of the run
    site: Site
    data: Path  # directory of the clients' rows
    state: Path  # directory for tasks and updates in flight, and private client state
    cache: Path  # folder of base models
    host: str  # this machine's name, for people
    software: str  # name and version of this software, for people
    compute: Compute
    incremental: IncrementalConfig | None = None
    base: Path | None = None  # directory of the run's base model on this machine
    site_settings: SiteSettings = SiteSettings()  # noqa: RUF009 - frozen
    plan: RunPlan | None = None  # that the people of the site were shown

    @property
    def memory(self) -> MemorySettings:
        return self.site_settings.memory


class Connections(NamedTuple):
    """Connections of a worker to both servers.

    Heartbeats have one of their own, with short time-outs, so that work never delays them.
    """

    broker: Broker
    store: Store
    heartbeat_store: Store


@dataclass(frozen=True)
class WorkerCallbacks:
    """Functions that a worker calls, from several threads."""

    on_event: EventCallback
    on_progress: ProgressCallback  # while a base model is fetched
    on_step: StepCallback = lambda task, report: None
    credentials_refused: CredentialsCheck = lambda: False
    metrics: Observer = Observer()  # noqa: RUF009 - its hooks do nothing


def start_worker(
    settings: WorkerSettings,
    run: str,
    connections: Connections,
    clock: Clock,
    callbacks: WorkerCallbacks,
) -> Worker:
    """Claim a slot, and return a started worker, whose `serve` runs the tasks.

    Raises:
        ConfigError: The validator of incremental learning is neither a command nor a URL, or the
            settings of the site do not fit the run.
        DataError: There are no rows here, so every task would be refused.
        ModelError: The site does not accept the run's base model, or the directory of the base
            model holds another one.
        RunError: The state directory cannot be written.
    """
    data = _client_data(settings)
    slot = claim_slot(settings.state, run)
    try:
        if (model := connections.store.get_model(run)) is not None:
            check_run(settings.site_settings, model)
        source = _make_source(settings, run, connections.store, callbacks)
        if settings.base is not None:
            source.use_base_directory(settings.base)
        parts = _make_parts(settings, run, data, slot, source, connections, clock, callbacks)
        worker = Worker(parts)
    except BaseException:
        slot.release()
        raise
    try:
        worker.start()
    except BaseException:
        worker.close()
        raise
    return worker


def _make_source(
    settings: WorkerSettings, run: str, store: Store, callbacks: WorkerCallbacks
) -> ModelSource:
    own = settings.site_settings
    throttle = Throttle(
        own.download_rate, lambda: count_workers(settings.state), callbacks.metrics.on_turn
    )
    return ModelSource(store, run, settings.cache, callbacks.on_progress, own.accept, throttle)


def _client_data(settings: WorkerSettings) -> ClientData:
    invited = settings.site != LOCAL
    data = ClientData(settings.data, settings.site.name if invited else None)
    if not data.clients():
        raise DataError(f"{settings.data} holds no client's rows", "name them with --data")
    return data


def _make_parts(
    settings: WorkerSettings,
    run: str,
    data: ClientData,
    slot: Slot,
    source: ModelSource,
    connections: Connections,
    clock: Clock,
    callbacks: WorkerCallbacks,
) -> WorkerParts:
    broker, store, heartbeat_store = connections
    own = settings.site_settings
    topology, site, metrics = Topology(run, (settings.site,)), settings.site, callbacks.metrics
    first = _first_heartbeat(settings, slot, data)
    folders = (
        settings.data,
        settings.state,
        settings.cache,
        settings.base,
        Path.home(),
        Path.cwd(),
    )
    public_text = LocalPaths(folders).strip
    heartbeats = HeartbeatSender(
        heartbeat_store, run, first, clock, metrics.on_heartbeat, public_text
    )

    def run_over() -> bool:
        return bool(run_discovery.end_reason(store, settings.name, run))

    events = EventLog(heartbeats, run_over, callbacks.on_event)
    models = ModelCache(settings.compute)
    memory = FittedMemory(settings.memory)
    learner = _make_learner(
        settings, run, data, models, source, slot, heartbeats, events, clock, memory
    )
    sent_log = None
    if site != LOCAL:
        sent_log = SentLogWriter(settings.state, run, site.name, clock)
    support = TaskSupport(
        run=run,
        site=site,
        worker_id=first.worker_id,
        store=store,
        slot=slot,
        source=source,
        heartbeats=heartbeats,
        on_event=events.record,
        metrics=metrics,
        settings=own,
        plan=settings.plan,
        sent_log=sent_log,
    )
    return WorkerParts(
        name=settings.name,
        run=run,
        store=store,
        slot=slot,
        heartbeats=heartbeats,
        events=events,
        enrolments=EnrolmentRequests(
            broker,
            store,
            topology,
            site,
            data.row_counts() if site != LOCAL else {},
            first.worker_id,
            settings.software,
            shares_updates=own.share_updates,
            credentials_refused=callbacks.credentials_refused,
            on_event=events.record,
        ),
        learner=learner,
        tasks=TaskSource(broker, topology, site, slot, events.record),
        runner=TaskRunner(
            support,
            state=settings.state,
            trainer=Trainer(data, models, memory, evaluation=own.evaluation),
            learner=learner,
            on_step=callbacks.on_step,
        ),
        evaluations=EvaluationRunner(support, VersionEvaluator(data, models)),
        publisher=Publisher(
            broker,
            store,
            topology,
            site,
            slot,
            events.record,
            metrics,
            on_receipt=learner.apply_receipt if learner else lambda pending, receipt: None,
            throttle=Throttle(own.upload_rate, lambda: count_workers(settings.state)),
            on_publishing=heartbeats.set_publishing,
            public_text=public_text,
            sent_log=sent_log,
        ),
        metrics=metrics,
        rest=Rest(own.windows, clock),
        device_share=lambda: _take_device_share(settings),
    )


def _first_heartbeat(settings: WorkerSettings, slot: Slot, data: ClientData) -> Heartbeat:
    return Heartbeat(
        worker_id=f"{settings.host}-{slot.number}",
        site=settings.site.name,
        state="waiting",
        clients=data.clients(),
        device=_take_device_share(settings),
        host=settings.host,
        software=settings.software,
    )


def _take_device_share(settings: WorkerSettings) -> str:
    """Limit torch to this worker's share of the cores, and describe it for the heartbeat."""
    threads = device.share_threads(settings.compute, count_workers(settings.state))
    return f"{settings.compute.device}, {threads} threads"


def _make_learner(
    settings: WorkerSettings,
    run: str,
    data: ClientData,
    models: ModelCache,
    source: ModelSource,
    slot: Slot,
    heartbeats: HeartbeatSender,
    events: EventLog,
    clock: Clock,
    memory: FittedMemory,
) -> Learner | None:
    if settings.incremental is None or not settings.incremental.enabled:
        return None
    return Learner(
        LearnerSettings(settings.state, run, settings.name, data.clients()),
        settings.incremental,
        data,
        models,
        source,
        slot,
        clock,
        Callbacks(
            events.record,
            lambda rows, wishes: heartbeats.update(inbox=rows, wishes=wishes, now=True),
            lambda digest: heartbeats.update(wants=digest, now=True),
        ),
        memory,
    )

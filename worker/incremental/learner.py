"""Learner: processes the inboxes of a worker's clients, between its tasks and between their steps.

The path of an item: `inbox/inbox.py` → here → `training/trainer.py` (which calls `batches`,
`shadow`, `evaluation`, `gate` and the validator) → `inbox/learning_store.py`, which keeps the
result in one transaction. From there it continues in `worker/service.py`: the client's next task
starts with it (`prepare_task`), the task's update carries it, and the update's receipt settles it
(`apply_receipt`).

Everything but `apply_receipt` runs in the worker's main thread, under the client's lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

from filelock import Timeout

from common.clock import Clock
from common.config.config import IncrementalConfig
from common.errors import DataError, DiskError, ModelError, StoreError, WireError
from common.protocol.adapter_form import AdapterForm
from common.protocol.fields import ROW_KINDS
from common.protocol.heartbeat import InboxFigures
from common.protocol.tasks import LoraSpec, Receipt, TrainTask
from common.protocol.tensors import Tensors
from common.protocol.versions import CurrentModel
from learning.models import lora
from learning.training.memory import FittedMemory
from worker.data.shards import ClientData
from worker.events import EventCallback, WorkerEventKind
from worker.incremental.inbox import schema
from worker.incremental.inbox.items import StoredItem
from worker.incremental.inbox.learning_store import LearningStore
from worker.incremental.inbox.schema import InboxDamaged
from worker.incremental.inbox.summaries import InboxSummaries
from worker.incremental.inbox.watcher import InboxWatcher
from worker.incremental.serving.newest_version import SAVE_INTERVAL_S, NewestVersion, model_of
from worker.incremental.serving.served_run import ServedRun
from worker.incremental.training.batches import ClientContext
from worker.incremental.training.shadow import ShadowModel
from worker.incremental.training.trainer import IncrementalTrainer
from worker.models.loaded import ModelCache
from worker.models.source import ModelSource
from worker.spool import PendingUpdate, Slot, client_lock
from worker.task_failures import TaskFailures
from worker.trainer import NO_START, IncrementalStart

MAX_BATCH_ITEMS = 256
_EXPECTED = (StoreError, WireError, ModelError, DataError, DiskError)


@dataclass(frozen=True)
class LearnerSettings:
    """Worker's state directory, its run (by id and by name), and the clients that it serves."""

    state: Path
    run: str
    name: str
    clients: tuple[str, ...]


@dataclass(frozen=True)
class Callbacks:
    """Callbacks of a learner; none is called with user text."""

    on_event: EventCallback
    # Figures of the inboxes, and the clients that would like to send an update soon.
    on_figures: Callable[[tuple[InboxFigures, ...], tuple[str, ...]], None]
    # Digest of a base model that the coordinator should provide; None when it has arrived.
    request_base: Callable[[str | None], None]


class Learner:
    """Part of a worker that processes the inboxes of its clients in one run."""

    def __init__(
        self,
        settings: LearnerSettings,
        config: IncrementalConfig,
        data: ClientData,
        models: ModelCache,
        source: ModelSource,
        slot: Slot,
        clock: Clock,
        callbacks: Callbacks,
        memory: FittedMemory | None = None,
    ) -> None:
        self._memory = memory or FittedMemory()
        self._failures = TaskFailures()
        self._settings, self._config = settings, config
        self._models, self._source, self._slot = models, source, slot
        self._callbacks = callbacks
        self._trainer = IncrementalTrainer(config, data, clock, callbacks.on_event)
        self._paths = {
            client: schema.inbox_path(settings.state, client) for client in settings.clients
        }
        self._watcher = InboxWatcher(self._paths, time.monotonic)
        self._summaries = InboxSummaries(settings.run)
        self._begun: set[str] = set()  # clients whose inbox was opened in this run
        self._updates: dict[str, str] = {}  # update id → client
        self._lora: dict[str, LoraSpec | None] = {}  # of the newest task of each client
        served = ServedRun(run=settings.run, name=settings.name, clients=settings.clients)
        self._newest = NewestVersion(settings.state, served, source)

    def start(self) -> None:
        """Announce the run and its clients to the commands beside this worker."""
        self._newest.announce()

    def process_inboxes(self, abandon: Event) -> None:
        """Learn from the inboxes that have changed, and fetch the newest version."""
        self._fetch_newest()
        changed = [*self._watcher.changed(), *self._trainer.decided_clients()]
        changed += self._summaries.outdated_clients(self._newest.number)
        self._process_each(dict.fromkeys(changed), abandon)

    def between_steps(self, task: TrainTask, abandon: Event) -> None:
        """Learn from changed inboxes while a task trains, and leave its model as it was."""
        changed = dict.fromkeys([*self._watcher.changed(), *self._trainer.decided_clients()])
        loaded = self._models.current
        if not changed or loaded is None:
            return
        mode, trained = loaded.model.training, lora.read_adapter(loaded.model)
        try:
            self._process_each(changed, abandon, training=task.client_id)
        finally:
            lora.write_adapter(loaded.model, trained)
            loaded.model.train(mode)

    def close(self) -> None:
        """Stop waiting for verdicts, and save the newest version."""
        self._trainer.close()
        self._fetch_newest(save_interval_s=0.0)

    # the path of an update

    def note_version(self, task: TrainTask, adapter: Tensors) -> None:
        """Remember the version that a task has brought, if it is the newest."""
        self._lora[task.client_id] = task.lora
        if task.refactored == "mixed":  # the task's rank may be below that of the version
            self._fetch_newest(needed=True)
            return
        try:
            self._newest.update(task, adapter)
        except DataError as error:  # the task continues without it
            self._report_waiting(str(error))

    def prepare_task(
        self, task: TrainTask, base: Path, adapter: Tensors, abandon: Event
    ) -> IncrementalStart:
        """Return what a task starts with: what the client has learned, for the task's update.

        The caller holds the client's lock. Whatever becomes of the task, `apply_receipt` or
        `release_task` must follow.
        """
        client = task.client_id
        path = self._paths.get(client)
        if path is None or not path.exists():
            return NO_START
        model = model_of(task)
        try:
            with LearningStore(path) as store:
                self._recover(client, store)
                context = ClientContext(
                    client, store, self._load_shadow(model, base), model, adapter
                )
                self._trainer.rebase(context, abandon)
                start = self._make_start(context, task)
                self._summaries.update(client, store)
        except DataError as error:
            self._report_waiting(f"the inbox of {client}: {error}")
            return NO_START
        self._report_figures()
        return start

    def release_task(self, task: TrainTask) -> None:
        """Make what an abandoned or refused task would have carried unsent again."""
        try:
            self._settle(f"{task.task_id}.{task.attempt}", accepted=False)
        except DataError as error:
            self._report_waiting(str(error))  # `_recover` makes up for it

    def apply_receipt(self, pending: PendingUpdate, receipt: Receipt) -> None:
        """Apply the receipt of an update, from any thread; repeating it is harmless.

        Raises:
            DataError: The disk refuses. Until the receipt is applied, the update must stay on the
                disk: otherwise what it carried would be sent a second time.
        """
        accepted = receipt.state == "accepted" and receipt.attempt == pending.attempt
        self._settle(pending.update_id, accepted=accepted)

    def _settle(self, update_id: str, *, accepted: bool) -> None:
        client = self._updates.get(update_id)
        paths = [self._paths[client]] if client else list(self._paths.values())
        for path in paths:
            if not path.exists():
                continue
            try:
                with LearningStore(path) as store:
                    count = store.apply_receipt(update_id, accepted=accepted)
            except InboxDamaged as error:  # there is nothing that could be sent again
                self._report_waiting(str(error))
                continue
            if count and accepted:
                text = f"update {update_id} with {count} items of live input was accepted"
                self._callbacks.on_event(WorkerEventKind.SETTLED, text)
        self._updates.pop(update_id, None)

    def _make_start(self, context: ClientContext, task: TrainTask) -> IncrementalStart:
        store, kind = context.store, ROW_KINDS[task.objective]
        rows = store.items(
            "learned", "settled", kind=kind, held_out=False, newest=self._config.reservoir
        )
        start = IncrementalStart(learned=[stored.item.row for stored in rows])
        local = store.local_model(task.run)
        if local is None or "unsent" not in local.parts or "riding" in local.parts:
            return start
        unsent = local.parts["unsent"]
        # The task may be older than the version on which the client has learned.
        if local.version != task.base_version and not self._trainer.can_attach(context, unsent):
            return start  # the next task will carry it
        update_id = f"{task.task_id}.{task.attempt}"
        self._updates[update_id] = context.client
        return replace(start, unsent=unsent, samples=store.attach_to_update(update_id))

    def _process_each(self, clients: Iterable[str], abandon: Event, training: str = "") -> None:
        """Process inboxes under their clients' locks; that of `training` is held already."""
        processed = False
        for client in clients:
            if abandon.is_set():
                break
            locked = client == training
            lock = client_lock(self._settings.state, self._settings.run, client, 0)
            try:
                with nullcontext() if locked else lock, LearningStore(self._paths[client]) as store:
                    self._process(client, store, abandon, in_task=locked)
                    self._summaries.update(client, store)
            except Timeout:
                continue  # another worker of this machine trains the client and learns its items
            except _EXPECTED as error:
                self._report_waiting(f"the inbox of {client}: {error}")
            except Exception as error:  # as a task's errors, of any kind
                self._report_waiting(f"the inbox of {client}: {self._failures.reason(error)}")
            self._watcher.mark_read(client)
            processed = True
        if processed:
            self._report_figures()

    def _process(self, client: str, store: LearningStore, abandon: Event, *, in_task: bool) -> None:
        self._recover(client, store, in_task=in_task)
        idle = not store.items("waiting", newest=1) and not self._trainer.is_pending(client)
        if idle and store.local_model(self._settings.run) is None:
            return
        newest = self._newest_of(client)
        if newest is None:
            self._report_waiting(f"the inbox of {client}: no version has been received yet")
            return
        model, adapter = newest
        base = self._source.fetch_base(model.base, self._callbacks.request_base, abandon)
        if base is None:
            return
        context = ClientContext(client, store, self._load_shadow(model, base), model, adapter)
        if not in_task:
            self._trainer.rebase(context, abandon)
        if not self._trainer.apply_verdict(context):
            return
        while group := _first_group(store.items("waiting")[:MAX_BATCH_ITEMS]):
            if not self._trainer.learn(context, group, abandon):
                return

    def _recover(self, client: str, store: LearningStore, *, in_task: bool = False) -> None:
        """Undo what a killed worker or an earlier run has left in an inbox.

        Since the client's lock is held, an update that is not on the disk will never be sent, so
        what it carries becomes unsent again. The exception is a task that is training right now,
        whose update is still to be written.
        """
        if client not in self._begun:
            store.begin_run(self._settings.run)
            self._begun.add(client)
        local = store.local_model(self._settings.run)
        if in_task or local is None or not local.update_id:
            return
        if self._slot.is_spooled(local.update_id):
            self._updates[local.update_id] = client
        else:
            store.apply_receipt(local.update_id, accepted=False)

    def _newest_of(self, client: str) -> tuple[CurrentModel, Tensors] | None:
        """Return the newest version at the rank of a client; None while it is not known.

        Where clients have ranks of their own, the first task of each tells it.
        """
        if self._newest.value is None or self._newest.value[0].refactored != "mixed":
            return self._newest.value
        model, adapter = self._newest.value
        if (lora := self._lora.get(client)) is None:
            return None
        return model.model_copy(update={"lora": lora}), AdapterForm(rank=lora.r).of(adapter)

    def _fetch_newest(
        self, save_interval_s: float = SAVE_INTERVAL_S, *, needed: bool = False
    ) -> None:
        """Fetch and save the newest version; failures are events, since an older one is there."""
        try:
            # Without any inbox nobody needs the newest version before a task brings it.
            if needed or self._watcher.any_exists():
                self._newest.fetch()
            self._newest.save(save_interval_s)
        except _EXPECTED as error:
            self._callbacks.on_event(WorkerEventKind.WAITING, error.what)

    def _load_shadow(self, model: CurrentModel, base: Path) -> ShadowModel:
        loaded = self._models.load(
            model.objective, base, model.base.digest, model.lora, model.labels, model.precision
        )
        autocast = self._models.compute.autocast
        return ShadowModel(loaded, model, self._config, autocast=autocast, memory=self._memory)

    def _report_figures(self) -> None:
        wishes = self._summaries.unsent_clients() if self._config.push else ()
        self._callbacks.on_figures(self._summaries.figures(), wishes)

    def _report_waiting(self, text: str) -> None:
        self._callbacks.on_event(WorkerEventKind.WAITING, text[:500])


def _first_group(items: Sequence[StoredItem]) -> list[StoredItem]:
    """Return the items of the oldest one's kind and task."""
    return [
        stored
        for stored in items
        if (stored.item.kind, stored.item.task) == (items[0].item.kind, items[0].item.task)
    ]

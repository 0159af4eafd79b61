"""Learns from the inboxes of the clients that a worker serves, between its tasks and its steps.

On an item's way: `inbox` → here → `tutor`, which asks `lessons`, `shadow` (trains a copy), `gate`
and `validator` (may say no) → `book` (keeps it, in one transaction). What was kept goes on in
`worker/service.py`: it is where the client's next task begins (`prepare_task`), rides in that task's
update, and is settled by its receipt (`apply_receipt`).

All but `apply_receipt` happens in the worker's main thread, under the client's lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event as Flag
from typing import Literal

from filelock import Timeout

from common.clock import Clock
from common.config.config import IncrementalConfig
from common.errors import DataError, ModelError, StoreError, WireError
from common.protocol.fields import ROW_KINDS
from common.protocol.heartbeat import InboxFigures
from common.protocol.tasks import Receipt, TrainTask
from common.protocol.tensors import Tensors
from common.protocol.versions import CurrentModel
from learning.models import lora
from worker.data.shards import ClientData
from worker.events import EventCallback, WorkerEventKind
from worker.incremental.inbox import schema
from worker.incremental.inbox.learning_store import Entry, LearningStore
from worker.incremental.inbox.watcher import InboxWatcher
from worker.incremental.serving import served_run
from worker.incremental.training.shadow import ShadowModel, row
from worker.incremental.training.trainer import ClientContext, IncrementalTrainer
from worker.models.loaded import ModelCache
from worker.models.source import ModelSource
from worker.spool import PendingUpdate, Slot, client_lock
from worker.trainer import NO_START, IncrementalStart

BATCH = 256  # items that are learned in one go
KEEP_S = 5.0  # between two writes of the newest version to the disk
MAX_HEARTBEAT_CLIENTS = 64  # clients in a heartbeat


@dataclass(frozen=True)
class LearnerSettings:
    """Whose inboxes, and where.

    Attributes:
        state: The worker's state directory.
        run: The run's id.
        name: Its name.
        clients: That are served.
    """

    state: Path
    run: str
    name: str
    clients: tuple[str, ...]


@dataclass(frozen=True)
class Callbacks:
    """Whom the learner tells.

    Attributes:
        on_event: Called with the kind and text of what happens. Never user text.
        shown: The figures of the inboxes, and the clients that would like to send.
        wanted: The digest of a base model to ask the coordinator for, and None at last.
    """

    on_event: EventCallback
    shown: Callable[[tuple[InboxFigures, ...], tuple[str, ...]], None]
    wanted: Callable[[str | None], None]


@dataclass(frozen=True)
class _Known:
    """What is remembered of an inbox between two looks."""

    row: InboxFigures
    version: int | None  # of what the client has learned on top of it
    unsent: bool
    riding: bool


class Learner:
    """Of one worker on one run."""

    def __init__(
        self,
        place: LearnerSettings,
        config: IncrementalConfig,
        data: ClientData,
        models: ModelCache,
        source: ModelSource,
        slot: Slot,
        clock: Clock,
        voice: Callbacks,
    ) -> None:
        """Nothing is learned yet.

        Raises:
            ConfigError: The validator is neither a command that is here nor a URL.
        """
        self._place, self._config = place, config
        self._models, self._source, self._slot = models, source, slot
        self._voice = voice
        self._tutor = IncrementalTrainer(config, data, clock, voice.on_event)
        self._paths = {client: schema.inbox_path(place.state, client) for client in place.clients}
        self._watch = InboxWatcher(self._paths, time.monotonic)
        self._known: dict[str, _Known] = {}
        self._entered: set[str] = set()
        self._rides: dict[str, str] = {}  # update id → client
        self._newest: tuple[CurrentModel, Tensors] | None = None
        self._kept: tuple[int, float] = (-1, 0.0)
        self._announced: served_run.ServedRun | None = None

    def start(self) -> None:
        """Announce the clients and the run to the processes beside this worker.

        Raises:
            DataError: The state directory cannot be written.
        """
        self._announce()

    # between tasks, between steps

    def process_inboxes(self, abandon: Flag) -> None:
        """Look into the inboxes that have changed, and follow the newest version."""
        try:
            self._follow()
        except (StoreError, WireError, ModelError, DataError) as error:
            self._voice.on_event(WorkerEventKind.WAITING, error.what)
        due = [*self._watch.due(), *self._tutor.answered(), *self._behind()]
        self._each(dict.fromkeys(due), abandon)

    def between_steps(self, task: TrainTask, abandon: Flag) -> None:
        """Look into them while a task trains, and leave its model as it was."""
        due = dict.fromkeys([*self._watch.due(), *self._tutor.answered()])
        loaded = self._models.current
        if not due or loaded is None:
            return
        mode, trained = loaded.model.training, lora.read_adapter(loaded.model)
        try:
            self._each(due, abandon, training=task.client_id)
        finally:
            lora.write_adapter(loaded.model, trained)
            loaded.model.train(mode)

    def close(self) -> None:
        """The worker leaves this run: the newest version stays on the disk."""
        self._tutor.close()
        try:
            self._follow()
            self._keep(0.0)
        except (StoreError, WireError, ModelError, DataError) as error:
            self._voice.on_event(WorkerEventKind.WAITING, error.what)  # an earlier version is there

    # on the way of an update

    def note_version(self, task: TrainTask, adapter: Tensors) -> None:
        """A task has brought a version."""
        if self._newest is None or task.base_version > self._newest[0].version:
            self._newest = _model_of(task), adapter
            try:
                self._announce()
                self._keep(KEEP_S)
            except DataError as error:  # the task goes on
                self._voice.on_event(WorkerEventKind.WAITING, str(error)[:500])

    def prepare_task(
        self, task: TrainTask, base: Path, adapter: Tensors, abandon: Flag
    ) -> IncrementalStart:
        """Where a task begins: what the client learned meanwhile goes with its update.

        The client's lock is held. Whatever becomes of the task, `apply_receipt` or `release_task` must follow.
        """
        client = task.client_id
        path = self._paths.get(client)
        if path is None or not path.exists():
            return NO_START
        model = _model_of(task)
        try:
            with LearningStore(path) as book:
                self._enter(client, book)
                pupil = ClientContext(client, book, self._shadow(model, base), model, adapter)
                self._tutor.rebase(pupil, abandon)
                start = self._start(pupil, task)
                self._remember(client, book)
        except DataError as error:
            self._voice.on_event(WorkerEventKind.WAITING, f"the inbox of {client}: {error}"[:500])
            return NO_START
        self._say()
        return start

    def release_task(self, task: TrainTask) -> None:
        """A task was abandoned or refused: nothing rides in it."""
        self._settled(f"{task.task_id}.{task.attempt}", accepted=False)

    def apply_receipt(self, pending: PendingUpdate, receipt: Receipt) -> None:
        """An update has its receipt. From any thread; again is harmless."""
        accepted = receipt.state == "accepted" and receipt.attempt == pending.attempt
        self._settled(pending.update_id, accepted=accepted)

    def _settled(self, ride: str, *, accepted: bool) -> None:
        client = self._rides.pop(ride, None)
        paths = [self._paths[client]] if client else list(self._paths.values())
        for path in paths:
            if not path.exists():
                continue
            try:
                with LearningStore(path) as book:
                    count = book.settle(ride, accepted=accepted)
            except DataError as error:
                self._voice.on_event(WorkerEventKind.WAITING, str(error)[:500])
                continue
            if count and accepted:
                self._voice.on_event(
                    WorkerEventKind.SETTLED, f"{count} items of live input are in update {ride}"
                )

    # inside

    def _each(self, clients: Iterable[str], abandon: Flag, training: str = "") -> None:
        looked = False
        for client in clients:
            if abandon.is_set():
                break
            mine = client == training
            lock = client_lock(self._place.state, self._place.run, client, 0)
            try:
                with nullcontext() if mine else lock, LearningStore(self._paths[client]) as book:
                    self._look(client, book, abandon, mine=mine)
                    self._remember(client, book)
            except Timeout:
                continue  # another worker of this machine trains it, and looks into its inbox
            except (StoreError, WireError, ModelError, DataError) as error:
                self._voice.on_event(
                    WorkerEventKind.WAITING, f"the inbox of {client}: {error}"[:500]
                )
            self._watch.done(client)
            looked = True
        if looked:
            self._say()

    def _look(self, client: str, book: LearningStore, abandon: Flag, *, mine: bool) -> None:
        self._enter(client, book, recover=not mine)
        waiting = book.count("waiting")
        local = book.local(self._place.run)
        if not waiting and local is None and not self._tutor.asks(client):
            return
        if self._newest is None:
            self._voice.on_event(
                WorkerEventKind.WAITING, f"the inbox of {client}: no version was seen yet"
            )
            return
        model, adapter = self._newest
        base = self._source.fetch_base(model.base, self._voice.wanted, abandon)
        if base is None:
            return
        pupil = ClientContext(client, book, self._shadow(model, base), model, adapter)
        if not mine:
            self._tutor.rebase(pupil, abandon)
        if not self._tutor.conclude(pupil):
            return
        while group := _group(book.entries("waiting")[:BATCH]):
            if not self._tutor.learn(pupil, group, abandon):
                return

    def _start(self, pupil: ClientContext, task: TrainTask) -> IncrementalStart:
        book, kind = pupil.book, ROW_KINDS[task.objective]
        rows = book.entries(
            "learned", "settled", kind=kind, held=False, newest=self._config.reservoir
        )
        start = IncrementalStart(learned=[row(entry) for entry in rows])
        local = book.local(task.run)
        if local is None or "unsent" not in local.parts or "riding" in local.parts:
            return start
        unsent = local.parts["unsent"]
        # The task may be older than what the client has seen.
        if local.version != task.base_version and not self._tutor.rides(pupil, unsent):
            return start  # it rides in the next one
        ride = f"{task.task_id}.{task.attempt}"
        self._rides[ride] = pupil.client
        return replace(start, unsent=unsent, samples=book.ride(ride))

    def _enter(self, client: str, book: LearningStore, *, recover: bool = True) -> None:
        """The client's lock is held, so what rides in an update that is not on the disk never will.

        Not so while its own task trains: then the update is still to come.
        """
        if client not in self._entered:
            book.enter(self._place.run)
            self._entered.add(client)
        if recover and (local := book.local(self._place.run)) and local.ride:
            if not self._slot.is_spooled(local.ride):
                book.settle(local.ride, accepted=False)
            else:
                self._rides[local.ride] = client

    def _follow(self) -> None:
        """Know the newest version, where there is anybody to use it; tasks bring it to others."""
        if not self._watch.there():
            return
        known = self._newest[0].version if self._newest else None
        found = self._source.fetch_newest(known)
        if found is not None:
            self._newest = found
            self._announce()
        self._keep(KEEP_S)

    def _behind(self) -> list[str]:
        """Clients whose learning is on an older version, and not under way."""
        if self._newest is None:
            return []
        version = self._newest[0].version
        return [
            client
            for client, known in self._known.items()
            if known.version is not None and known.version < version and not known.riding
        ]

    def _announce(self) -> None:
        place = self._place
        labels = self._newest[0].labels if self._newest else ()
        kinds: tuple[Literal["sft", "va", "cls"], ...] = ()
        if self._newest:
            kinds = ("cls",) if self._newest[0].objective == "classification" else ("sft", "va")
        about = served_run.ServedRun(
            run=place.run, name=place.name, clients=place.clients, kinds=kinds, labels=labels
        )
        if about != self._announced:
            served_run.write(place.state, about)
            self._announced = about

    def _keep(self, pause_s: float) -> None:
        if self._newest is None:
            return
        model, adapter = self._newest
        version, at = self._kept
        now = time.monotonic()
        if model.version != version and (version < 0 or now - at >= pause_s):
            served_run.keep_model(self._place.state, model, adapter)
            self._kept = model.version, now

    def _shadow(self, model: CurrentModel, base: Path) -> ShadowModel:
        loaded = self._models.load(
            model.objective, base, model.base.digest, model.lora, model.labels
        )
        return ShadowModel(loaded, model, self._config, autocast=self._models.compute.autocast)

    def _remember(self, client: str, book: LearningStore) -> None:
        local = book.local(self._place.run)
        parts = local.parts if local else {}
        self._known[client] = _Known(
            book.row(client),
            local.version if local else None,
            unsent="unsent" in parts,
            riding="riding" in parts,
        )

    def _say(self) -> None:
        newest = sorted(self._known.values(), key=lambda known: -known.row.at)
        wishes = tuple(known.row.client_id for known in newest if known.unsent)
        self._voice.shown(
            tuple(known.row for known in newest[:MAX_HEARTBEAT_CLIENTS]),
            wishes[:MAX_HEARTBEAT_CLIENTS] if self._config.push else (),
        )


def _model_of(task: TrainTask) -> CurrentModel:
    return CurrentModel(
        run=task.run,
        version=task.base_version,
        phase=task.phase,
        objective=task.objective,
        base=task.base,
        adapter=task.adapter,
        lora=task.lora,
        max_length=task.training.max_length,
        dpo=task.dpo,
        labels=task.labels,
    )


def _group(entries: Sequence[Entry]) -> list[Entry]:
    """Items of the oldest one's kind and task."""
    return [e for e in entries if (e.kind, e.task) == (entries[0].kind, entries[0].task)]

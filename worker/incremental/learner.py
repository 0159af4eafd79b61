"""Learns from the inboxes of the clients that a worker serves, between its tasks and its steps.

On an item's way: `inbox` → here → `lessons`, `shadow` (trains a copy) → `gate` and `validator`
(may say no) → `book` (keeps it, in one transaction). What was kept goes on in `worker/service.py`:
it is where the client's next task begins (`prepare`), rides in that task's update, and is settled
by its receipt (`settle`).

All but `settle` happens in the worker's main thread, under the client's lock.
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
from common.config import IncrementalConfig
from common.errors import DataError, ModelError, StoreError, WireError
from common.records import KINDS, CurrentModel, InboxRow, Receipt, TrainTask
from common.tensors import Tensors
from learning import lora
from learning.loop import StepReport
from worker.data import Data
from worker.incremental import schema, served, validator
from worker.incremental.book import Book, Entry, added, said
from worker.incremental.lessons import Desk, helps
from worker.incremental.shadow import Shadow, difference, row
from worker.incremental.trial import Trial
from worker.incremental.watch import Watch
from worker.models import Models
from worker.source import Source
from worker.spool import Pending, Slot, client_lock
from worker.trainer import NOTHING, Start

BATCH = 256  # items that are learned in one go
KEEP_S = 5.0  # between two writes of the newest version to the disk
TOLD = 64  # clients in a heartbeat
BY_VALIDATOR = "by the validator:"
VETO = "the validator did not accept it"  # all that others are told
SAMPLES = 5  # items that a validator sees
RECENT = 96  # settled items by which it is judged whether the federation knows them


@dataclass(frozen=True)
class Place:
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
class Voice:
    """Whom the learner tells.

    Attributes:
        told: The kind and text of what happens. Never user text.
        shown: The figures of the inboxes, and the clients that would like to send.
        wanted: The digest of a base model to ask the coordinator for, and None at last.
    """

    told: Callable[[str, str], None]
    shown: Callable[[tuple[InboxRow, ...], tuple[str, ...]], None]
    wanted: Callable[[str | None], None]


@dataclass(frozen=True)
class _Known:
    """What is remembered of an inbox between two looks."""

    row: InboxRow
    version: int | None  # of what the client has learned on top of it
    unsent: bool
    riding: bool


class Learner:
    """Of one worker on one run."""

    def __init__(
        self,
        place: Place,
        config: IncrementalConfig,
        data: Data,
        models: Models,
        source: Source,
        slot: Slot,
        clock: Clock,
        voice: Voice,
    ) -> None:
        """Nothing is learned yet.

        Raises:
            ConfigError: The validator is neither a command that is here nor a URL.
            DataError: The state directory cannot be written.
        """
        self._place, self._config, self._data = place, config, data
        self._models, self._source, self._slot = models, source, slot
        self._clock, self._voice = clock, voice
        validator.check(config.validator)
        self._paths = {client: schema.inbox_path(place.state, client) for client in place.clients}
        self._watch = Watch(self._paths, time.monotonic)
        self._known: dict[str, _Known] = {}
        self._entered: set[str] = set()
        self._rides: dict[str, str] = {}  # update id → client
        self._newest: tuple[CurrentModel, Tensors] | None = None
        self._kept: tuple[int, float] = (-1, 0.0)
        self._announced: served.Served | None = None
        self._announce()

    # between tasks, between steps

    def attend(self, abandon: Flag) -> None:
        """Look into the inboxes that have changed, and follow the newest version."""
        try:
            self._follow()
        except (StoreError, WireError, ModelError, DataError) as error:
            self._voice.told("waiting", error.what)
        self._each([*dict.fromkeys([*self._watch.due(), *self._behind()])], abandon)

    def between_steps(self, task: TrainTask, abandon: Flag) -> None:
        """Look into them while a task trains, and leave its model as it was."""
        due = self._watch.due()
        loaded = self._models.at_hand
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
        try:
            self._follow()
            self._keep(0.0)
        except (StoreError, WireError, ModelError, DataError) as error:
            self._voice.told("waiting", error.what)  # an earlier version is there

    # on the way of an update

    def seen(self, task: TrainTask, adapter: Tensors) -> None:
        """A task has brought a version."""
        if self._newest is None or task.base_version > self._newest[0].version:
            self._newest = _model_of(task), adapter
            try:
                self._announce()
                self._keep(KEEP_S)
            except DataError as error:  # the task goes on
                self._voice.told("waiting", str(error)[:500])

    def prepare(self, task: TrainTask, base: Path, adapter: Tensors, abandon: Flag) -> Start:
        """Where a task begins: what the client learned meanwhile goes with its update.

        The client's lock is held. Whatever becomes of the task, `settle` or `left` must follow.
        """
        client = task.client_id
        path = self._paths.get(client)
        if path is None or not path.exists():
            return NOTHING
        model = _model_of(task)
        try:
            with Book(path) as book:
                self._enter(client, book)
                shadow = self._shadow(model, base)
                self._rebase(client, book, shadow, model, adapter, abandon)
                start = self._start(client, book, shadow, task, adapter)
                self._remember(client, book)
        except DataError as error:
            self._voice.told("waiting", f"the inbox of {client}: {error}"[:500])
            return NOTHING
        self._say()
        return start

    def left(self, task: TrainTask) -> None:
        """A task was abandoned or refused: nothing rides in it."""
        self._settled(f"{task.task_id}.{task.attempt}", accepted=False)

    def settle(self, pending: Pending, receipt: Receipt) -> None:
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
                with Book(path) as book:
                    count = book.settle(ride, accepted=accepted)
            except DataError as error:
                self._voice.told("waiting", str(error)[:500])
                continue
            if count and accepted:
                self._voice.told("settled", f"{count} items of live input are in update {ride}")

    # inside

    def _each(self, clients: Iterable[str], abandon: Flag, training: str = "") -> None:
        looked = False
        for client in clients:
            if abandon.is_set():
                break
            mine = client == training
            lock = client_lock(self._place.state, self._place.run, client, 0)
            try:
                with nullcontext() if mine else lock, Book(self._paths[client]) as book:
                    self._look(client, book, abandon, mine=mine)
                    self._remember(client, book)
            except Timeout:
                continue  # another worker of this machine trains it, and looks into its inbox
            except (StoreError, WireError, ModelError, DataError) as error:
                self._voice.told("waiting", f"the inbox of {client}: {error}"[:500])
            self._watch.done(client)
            looked = True
        if looked:
            self._say()

    def _look(self, client: str, book: Book, abandon: Flag, *, mine: bool) -> None:
        self._enter(client, book, recover=not mine)
        waiting = book.count("waiting")
        local = book.local(self._place.run)
        if not waiting and local is None:
            return
        if self._newest is None:
            self._voice.told("waiting", f"the inbox of {client}: no version was seen yet")
            return
        model, adapter = self._newest
        base = self._source.base(model.base, self._voice.wanted, abandon)
        if base is None:
            return
        shadow = self._shadow(model, base)
        if not mine:
            self._rebase(client, book, shadow, model, adapter, abandon)
        while group := _group(book.entries("waiting")[:BATCH]):
            if not self._learn(client, book, shadow, (model, adapter), group, abandon):
                return

    def _learn(
        self,
        client: str,
        book: Book,
        shadow: Shadow,
        newest: tuple[CurrentModel, Tensors],
        group: Sequence[Entry],
        abandon: Flag,
    ) -> bool:
        """Try to learn some items of one kind; False if `abandon` came between."""
        model, adapter = newest
        local = book.local(model.run)
        begun = local.current if local else adapter
        desk = self._desk(client, book, shadow, model)
        prepared = desk.prepared(group, begun, split=True)
        if prepared.unusable:
            reason = _unusable(prepared.unusable, shadow)
            book.refuse([entry.id for entry in prepared.unusable], reason)
        if not prepared.lessons:
            return True
        trial = Trial(model, local, prepared, self._clock())
        try:
            done = shadow.train(begun, prepared.lessons, group[-1].id, _unless(abandon))
        except ModelError as error:
            self._reject(client, book, trial, error.what)
            return True
        if done is None:
            return False
        parts = tuple(local.parts.values()) if local else ()
        found = desk.judge(prepared, begun, difference(done.adapter, begun), parts)
        trial = replace(
            trial,
            figures=found.figures,
            steps=done.steps,
            seconds=done.seconds,
            share=found.share,
        )
        if reason := found.reason or self._vetoed(client, shadow, trial, begun, found.after):
            self._reject(client, book, trial, reason)
            return True
        book.accept(
            trial.batch("accepted"),
            [entry.id for entry in prepared.train],
            [entry.id for entry in prepared.held],
            found.learned,
            found.after,
            desk.stream(prepared, found.after),
        )
        self._voice.told("learned", f"{client}: {trial.text()}")
        return True

    def _reject(self, client: str, book: Book, trial: Trial, reason: str) -> None:
        entries = trial.prepared.entries
        told = VETO if reason.startswith(BY_VALIDATOR) else reason  # it may repeat what users wrote
        book.reject(trial.batch("rejected", told), [entry.id for entry in entries], reason)
        self._voice.told("unlearned", f"{client}: {len(entries)} items are not learned: {told}")

    def _vetoed(
        self, client: str, shadow: Shadow, trial: Trial, before: Tensors, after: Tensors
    ) -> str:
        """Why the external validator does not accept; empty where it does, or there is none."""
        config, figures, entries = self._config, trial.figures, trial.prepared.entries
        if not config.validator.strip() or figures is None:
            return ""
        few = (trial.prepared.held or trial.prepared.train)[:SAMPLES]
        answers = [shadow.answers(model, entries[0].kind, few) for model in (before, after)]
        asked = [said(entry) for entry in few]
        case = validator.Case(
            client_id=client,
            kind=entries[0].kind,
            task=entries[0].task,
            items=len(entries),
            new_before=figures.new_before,
            new_after=figures.new_after,
            anchor_before=figures.anchor_before,
            anchor_after=figures.anchor_after,
            norm=figures.norm,
            samples=tuple(
                validator.Sample(text, expected, old, new)
                for (text, expected), old, new in zip(asked, *answers, strict=True)
            ),
        )
        verdict = validator.validate(config.validator, case, config.validator_timeout_s)
        return "" if verdict.accepted else f"{BY_VALIDATOR} {verdict.reason}"

    def _rebase(
        self,
        client: str,
        book: Book,
        shadow: Shadow,
        model: CurrentModel,
        adapter: Tensors,
        abandon: Flag,
    ) -> None:
        """Bring what was learned onto a newer version, and ask the gate again.

        First as it is; where that no longer does, by learning the items anew from the new version;
        where that does not either, the items are rejected, with the reason. What is under way in an
        update is waited for: the new version may hold a part of it already.
        """
        local = book.local(model.run)
        if local is None or local.version >= model.version or "riding" in local.parts:
            return
        learned = book.entries("learned")
        entries = learned or book.entries("settled", newest=RECENT)
        desk = self._desk(client, book, shadow, model)
        prepared = desk.prepared(entries, adapter, split=False)
        trial = Trial(model, None, prepared, self._clock())
        own = added(*local.parts.values()) or {}
        moved = added(adapter, own) if own else None
        if moved is not None and prepared.exams:
            figures = desk.compare(prepared, adapter, moved, own)
            if not desk.refusal(figures) and (learned or helps(figures)):
                book.rebase(model.run, model.version, moved, local.parts)
                return
        if not learned:  # the federation knows by now what this client taught it
            book.rebase(model.run, model.version, None, {})
            return
        reason = "none of them can be used any more"
        if prepared.lessons:
            try:
                done = shadow.train(adapter, prepared.lessons, model.version, _unless(abandon))
            except ModelError as error:
                self._give_up(client, book, trial, f"after version {model.version}: {error.what}")
                return
            if done is None:
                return
            found = desk.judge(prepared, adapter, difference(done.adapter, adapter), ())
            trial = replace(trial, figures=found.figures, steps=done.steps, seconds=done.seconds)
            reason = found.reason
            if not reason:
                book.rebase(model.run, model.version, found.after, {"unsent": found.learned})
                text = f"{len(learned)} items are learned again on version {model.version}"
                self._voice.told("rebased", f"{client}: {text}")
                return
        self._give_up(client, book, trial, f"after version {model.version}: {reason}")

    def _give_up(self, client: str, book: Book, trial: Trial, reason: str) -> None:
        book.drop(trial.batch("rejected", reason))
        count = len(trial.prepared.entries)
        self._voice.told("unlearned", f"{client}: {count} items are given up {reason}")

    def _start(
        self, client: str, book: Book, shadow: Shadow, task: TrainTask, adapter: Tensors
    ) -> Start:
        kind = KINDS[task.objective]
        rows = book.entries(
            "learned", "settled", kind=kind, held=False, newest=self._config.reservoir
        )
        start = Start(learned=[row(entry) for entry in rows])
        local = book.local(task.run)
        if local is None or "unsent" not in local.parts or "riding" in local.parts:
            return start
        unsent = local.parts["unsent"]
        if local.version != task.base_version:  # the task is older than what the client has seen
            desk = self._desk(client, book, shadow, _model_of(task))
            prepared = desk.prepared(book.entries("learned"), adapter, split=False)
            moved = added(adapter, unsent) or adapter
            if not prepared.exams or desk.refusal(desk.compare(prepared, adapter, moved, unsent)):
                return start  # it rides in the next one
        ride = f"{task.task_id}.{task.attempt}"
        self._rides[ride] = client
        return replace(start, unsent=unsent, samples=book.ride(ride))

    def _enter(self, client: str, book: Book, *, recover: bool = True) -> None:
        """The client's lock is held, so what rides in an update that is not on the disk never will.

        Not so while its own task trains: then the update is still to come.
        """
        if client not in self._entered:
            book.enter(self._place.run)
            self._entered.add(client)
        if recover and (local := book.local(self._place.run)) and local.ride:
            if not self._slot.spooled(local.ride):
                book.settle(local.ride, accepted=False)
            else:
                self._rides[local.ride] = client

    def _follow(self) -> None:
        """Know the newest version, where there is anybody to use it; tasks bring it to others."""
        if not self._watch.there():
            return
        known = self._newest[0].version if self._newest else None
        found = self._source.newest(known)
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
        about = served.Served(
            run=place.run, name=place.name, clients=place.clients, kinds=kinds, labels=labels
        )
        if about != self._announced:
            served.write(place.state, about)
            self._announced = about

    def _keep(self, pause_s: float) -> None:
        if self._newest is None:
            return
        model, adapter = self._newest
        version, at = self._kept
        now = time.monotonic()
        if model.version != version and (version < 0 or now - at >= pause_s):
            served.keep_model(self._place.state, model, adapter)
            self._kept = model.version, now

    def _shadow(self, model: CurrentModel, base: Path) -> Shadow:
        loaded = self._models.load(
            model.objective, base, model.base.digest, model.lora, model.labels
        )
        return Shadow(loaded, model, self._config, autocast=self._models.compute.autocast)

    def _desk(self, client: str, book: Book, shadow: Shadow, model: CurrentModel) -> Desk:
        return Desk(client, book, shadow, self._data, model, self._config)

    def _remember(self, client: str, book: Book) -> None:
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
            tuple(known.row for known in newest[:TOLD]), wishes[:TOLD] if self._config.push else ()
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


def _unusable(entries: Sequence[Entry], shadow: Shadow) -> str:
    if not shadow.learns(entries[0].kind):
        return f"this run's model learns no {entries[0].kind} rows"
    return "it is too long for this model, or its label is none of the run's classes"


def _unless(abandon: Flag) -> Callable[[StepReport], bool]:
    return lambda _: not abandon.is_set()

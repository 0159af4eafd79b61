"""Teaches one client's model what its users said: trains a copy, asks the gate and the validator.

`learner` says when, and holds the client's lock; `lessons` and `shadow` do the work; `book` keeps
what came of it. An external validator is asked in the background (`verdicts`): a lesson that waits
for its verdict holds up neither tasks nor steps, and its items wait until it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Event as Flag

import numpy as np

from common.clock import Clock
from common.config.config import IncrementalConfig
from common.errors import ModelError
from common.protocol.tensors import Tensors
from common.protocol.versions import CurrentModel
from learning.evaluation.measurement import Measurement
from learning.training.loop import StepReport
from worker.data.shards import ClientData
from worker.events import EventCallback, WorkerEventKind
from worker.incremental.inbox.learning_store import (
    Entry,
    LearningStore,
    LocalModel,
    add_tensors,
    question_and_answer,
)
from worker.incremental.training.attempt import Attempt
from worker.incremental.training.batches import BatchBuilder, GateResult, helps
from worker.incremental.training.shadow import ShadowModel, difference
from worker.incremental.validation import validator
from worker.incremental.validation.background import BackgroundValidator

BY_VALIDATOR = "by the validator:"
VETO = "the validator did not accept it"  # all that others are told
SAMPLES = 5  # items that a validator sees
RECENT = 96  # settled items by which it is judged whether the federation knows them

"""The kind and text of what happens. Never user text."""


@dataclass(frozen=True)
class ClientContext:
    """A client, and the version that it learns on.

    Attributes:
        client: Its name.
        book: Open.
        shadow: Of the version's model.
        model: What the version is.
        adapter: θ of the version.
    """

    client: str
    book: LearningStore
    shadow: ShadowModel
    model: CurrentModel
    adapter: Tensors


@dataclass(frozen=True)
class _Claim:
    """A lesson that has passed the gate.

    Attributes:
        trial: With its figures.
        begun: The model that it began as.
        found: What of it may be kept.
        measured: See `Book.accept`.
    """

    trial: Attempt
    begun: Tensors
    found: GateResult
    measured: Mapping[str, tuple[Measurement, int]]


class IncrementalTrainer:
    """Of the clients of one worker on one run."""

    def __init__(
        self, config: IncrementalConfig, data: ClientData, clock: Clock, on_event: EventCallback
    ) -> None:
        """Nothing is learned yet.

        Raises:
            ConfigError: The validator is neither a command that is here nor a URL.
        """
        self._config, self._data, self._clock, self._on_event = config, data, clock, on_event
        validator.check_spec(config.validator)
        self._verdicts = BackgroundValidator(config.validator.strip(), config.validator_timeout_s)
        self._claims: dict[str, _Claim] = {}

    def answered(self) -> list[str]:
        """Clients of whose lessons the validator has said what it thinks."""
        return self._verdicts.answered()

    def close(self) -> None:
        """Wait for no verdict any more: those items are learned again, another time."""
        self._verdicts.close()

    def learn(self, pupil: ClientContext, group: Sequence[Entry], abandon: Flag) -> bool:
        """Try to learn some items of one kind and task.

        Returns:
            False if `abandon` came between, or if the validator is asked now.
        """
        book, shadow, model = pupil.book, pupil.shadow, pupil.model
        local = book.local(model.run)
        begun = local.current if local else pupil.adapter
        desk = self._desk(pupil)
        prepared = desk.prepared(group, begun, split=True)
        if prepared.unusable:
            reason = _unusable(prepared.unusable, shadow)
            book.refuse([entry.id for entry in prepared.unusable], reason)
        if not prepared.lessons:
            return True
        trial = Attempt(model, local, prepared, self._clock())
        try:
            done = shadow.train(begun, prepared.lessons, group[-1].id, _unless(abandon))
        except ModelError as error:
            self._reject(pupil, trial, error.what)
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
        if found.reason:
            self._reject(pupil, trial, found.reason)
            return True
        claim = _Claim(trial, begun, found, desk.stream(prepared, found.after))
        if not self._verdicts.wanted:
            self._accept(pupil, claim)
            return True
        self._claims[pupil.client] = claim
        self._verdicts.ask(pupil.client, _case(pupil, claim))
        return False

    def conclude(self, pupil: ClientContext) -> bool:
        """Do what the validator has decided; False while it still thinks.

        Where the client has meanwhile learned something else, or the same on another version, or
        its user has taken items back, a yes is about a model that must not be: what is left of the
        items waits, and is learned anew.
        """
        if pupil.client not in self._claims:
            return True
        verdict = self._verdicts.take(pupil.client)
        if verdict is None:
            return False
        claim = self._claims.pop(pupil.client)
        if not verdict.accepted:
            self._reject(pupil, claim.trial, f"{BY_VALIDATOR} {verdict.reason}")
        elif self._holds(pupil, claim.trial):
            self._accept(pupil, claim)
        return True

    def rebase(self, pupil: ClientContext, abandon: Flag) -> None:
        """Bring what was learned onto a newer version, and ask the gate again.

        First as it is; where that no longer does, by learning the items anew from the new version;
        where that does not either, the items are rejected, with the reason. What is under way in an
        update is waited for: the new version may hold a part of it already.
        """
        book, shadow, model, adapter = pupil.book, pupil.shadow, pupil.model, pupil.adapter
        local = book.local(model.run)
        if local is None or local.version >= model.version or "riding" in local.parts:
            return
        learned = book.entries("learned")
        entries = learned or book.entries("settled", newest=RECENT)
        desk = self._desk(pupil)
        prepared = desk.prepared(entries, adapter, split=False)
        trial = Attempt(model, None, prepared, self._clock())
        own = add_tensors(*local.parts.values()) or {}
        moved = add_tensors(adapter, own) if own else None
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
                self._give_up(pupil, trial, f"after version {model.version}: {error.what}")
                return
            if done is None:
                return
            found = desk.judge(prepared, adapter, difference(done.adapter, adapter), ())
            trial = replace(trial, figures=found.figures, steps=done.steps, seconds=done.seconds)
            reason = found.reason
            if not reason:
                book.rebase(model.run, model.version, found.after, {"unsent": found.learned})
                text = f"{len(learned)} items are learned again on version {model.version}"
                self._on_event(WorkerEventKind.REBASED, f"{pupil.client}: {text}")
                return
        self._give_up(pupil, trial, f"after version {model.version}: {reason}")

    def rides(self, pupil: ClientContext, unsent: Tensors) -> bool:
        """Whether a task from the pupil's version may begin with what is unsent on top of it."""
        desk, adapter = self._desk(pupil), pupil.adapter
        prepared = desk.prepared(pupil.book.entries("learned"), adapter, split=False)
        if not prepared.exams:
            return False
        moved = add_tensors(adapter, unsent) or adapter
        return not desk.refusal(desk.compare(prepared, adapter, moved, unsent))

    def asks(self, client: str) -> bool:
        """Whether a lesson of this client is with the validator, or has its answer."""
        return client in self._claims

    def _holds(self, pupil: ClientContext, trial: Attempt) -> bool:
        """Whether client and items are what they were when the lesson began."""
        waiting = {entry.id for entry in pupil.book.entries("waiting")}
        left = waiting.issuperset(entry.id for entry in trial.prepared.entries)
        return left and _same(trial.local, pupil.book.local(pupil.model.run))

    def _accept(self, pupil: ClientContext, claim: _Claim) -> None:
        prepared, found = claim.trial.prepared, claim.found
        pupil.book.accept(
            claim.trial.batch("accepted"),
            [entry.id for entry in prepared.train],
            [entry.id for entry in prepared.held],
            found.learned,
            found.after,
            claim.measured,
        )
        self._on_event(WorkerEventKind.LEARNED, f"{pupil.client}: {claim.trial.text()}")

    def _reject(self, pupil: ClientContext, trial: Attempt, reason: str) -> None:
        entries = trial.prepared.entries
        told = VETO if reason.startswith(BY_VALIDATOR) else reason  # it may repeat what users wrote
        pupil.book.reject(trial.batch("rejected", told), [entry.id for entry in entries], reason)
        self._on_event(
            WorkerEventKind.UNLEARNED,
            f"{pupil.client}: {len(entries)} items are not learned: {told}",
        )

    def _give_up(self, pupil: ClientContext, trial: Attempt, reason: str) -> None:
        pupil.book.drop(trial.batch("rejected", reason))
        count = len(trial.prepared.entries)
        self._on_event(
            WorkerEventKind.UNLEARNED, f"{pupil.client}: {count} items are given up {reason}"
        )

    def _desk(self, pupil: ClientContext) -> BatchBuilder:
        return BatchBuilder(
            pupil.client, pupil.book, pupil.shadow, self._data, pupil.model, self._config
        )


def _case(pupil: ClientContext, claim: _Claim) -> validator.ValidationRequest:
    """What the validator is told of a lesson."""
    prepared, figures = claim.trial.prepared, claim.found.figures
    entries = prepared.entries
    few = (prepared.held or prepared.train)[:SAMPLES]
    models = (claim.begun, claim.found.after)
    answers = [pupil.shadow.answers(model, entries[0].kind, few) for model in models]
    asked = [question_and_answer(entry) for entry in few]
    return validator.ValidationRequest(
        client_id=pupil.client,
        kind=entries[0].kind,
        task=entries[0].task,
        items=len(entries),
        new_before=figures.new_before,
        new_after=figures.new_after,
        anchor_before=figures.anchor_before,
        anchor_after=figures.anchor_after,
        norm=figures.norm,
        samples=tuple(
            validator.ValidationSample(text, expected, old, new)
            for (text, expected), old, new in zip(asked, *answers, strict=True)
        ),
    )


def _same(one: LocalModel | None, other: LocalModel | None) -> bool:
    """Whether a client's model is what it was. Its parts may have gone on their way meanwhile."""
    if one is None or other is None:
        return one is other
    if one.version != other.version or one.current.keys() != other.current.keys():
        return False
    return all(np.array_equal(one.current[name], other.current[name]) for name in one.current)


def _unusable(entries: Sequence[Entry], shadow: ShadowModel) -> str:
    if not shadow.learns(entries[0].kind):
        return f"this run's model learns no {entries[0].kind} rows"
    return "it is too long for this model, or its label is none of the run's classes"


def _unless(abandon: Flag) -> Callable[[StepReport], bool]:
    return lambda _: not abandon.is_set()

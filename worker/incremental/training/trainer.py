"""Trainer of a client's model on live input: trains a copy, then asks the gate and the validator.

`learner` decides when, and holds the client's lock; `batches`, `shadow`, `evaluation` and `gate` do
the work; `inbox/learning_store.py` keeps the result. An external validator is asked in the
background, so a batch that waits for its verdict delays neither tasks nor steps; its items stay
`waiting` until then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Event

import numpy as np

from common.clock import Clock
from common.config.config import IncrementalConfig
from common.errors import ModelError
from common.protocol.tensors import Tensors
from learning.training.loop import StepReport
from worker.data.shards import ClientData
from worker.events import EventCallback, WorkerEventKind
from worker.incremental.inbox.items import StoredItem
from worker.incremental.inbox.learning_store import LocalModel, add_tensors
from worker.incremental.training import gate
from worker.incremental.training.attempt import Attempt
from worker.incremental.training.batches import BatchBuilder, ClientContext, LearningBatch
from worker.incremental.training.evaluation import GateResult, compare, evaluate, still_helps
from worker.incremental.training.gate import BatchRejection, BatchRejectionKind
from worker.incremental.training.shadow import ShadowModel, difference
from worker.incremental.validation import validator
from worker.incremental.validation.background import BackgroundValidator

VALIDATOR_SAMPLES = 5  # items that a validator sees
RECENT_SETTLED = 96  # settled items that show whether the global version knows them


class IncrementalTrainer:
    """Trainer of the models of one worker's clients in one run."""

    def __init__(
        self, config: IncrementalConfig, data: ClientData, clock: Clock, on_event: EventCallback
    ) -> None:
        """Raise `ConfigError` if the validator is neither a command on this machine nor a URL."""
        self._config, self._data, self._clock, self._on_event = config, data, clock, on_event
        validator.check_spec(config.validator)
        self._validator = BackgroundValidator(config.validator.strip(), config.validator_timeout_s)
        self._pending: dict[str, Attempt] = {}

    def decided_clients(self) -> list[str]:
        """Return the clients whose batch the validator has decided."""
        return self._validator.answered()

    def close(self) -> None:
        """Cancel requests to the validator; their items stay waiting."""
        self._validator.close()

    def learn(self, context: ClientContext, items: Sequence[StoredItem], abandon: Event) -> bool:
        """Try to learn some items of one kind and task.

        Return False if `abandon` was set meanwhile, or if the validator has to decide first.
        """
        store, shadow = context.store, context.shadow
        local = store.local_model(context.model.run)
        start = local.current if local else context.adapter
        builder = self._builder(context)
        batch = builder.build(items, start, split=True)
        if batch.unusable:
            reason = _why_unusable(batch.unusable[0], shadow)
            store.reject_items([stored.id for stored in batch.unusable], reason)
        if not batch.training_sets:
            return True
        attempt = Attempt(context.model, local, batch, self._clock())
        try:
            copy = shadow.train(start, batch.training_sets, items[-1].id, _until_set(abandon))
        except ModelError as error:
            self._reject(context, attempt, BatchRejection(BatchRejectionKind.TRAINING, error.what))
            return True
        if copy is None:
            return False
        parts = tuple(local.parts.values()) if local else ()
        learned = difference(copy.adapter, start)
        result = evaluate(shadow, self._config, batch, start, learned, parts)
        attempt = replace(attempt, result=result, steps=copy.steps, seconds=copy.seconds)
        if result.rejection is not None:
            self._reject(context, attempt, result.rejection)
            return True
        attempt = replace(attempt, measured=builder.measure_stream(batch, result.after))
        if not self._validator.configured:
            self._accept(context, attempt, result)
            return True
        self._pending[context.client] = attempt
        request = _make_request(context, batch, start, result)
        self._validator.submit(context.client, request)
        return False

    def apply_verdict(self, context: ClientContext) -> bool:
        """Apply the validator's verdict if there is one; return False while it is still awaited.

        If the client has meanwhile learned something else, or the same on another version, or its
        user has removed items, an acceptance applies to a model that must not exist any more: the
        remaining items stay waiting and are learned anew.
        """
        if context.client not in self._pending:
            return True
        verdict = self._validator.take(context.client)
        if verdict is None:
            return False
        attempt = self._pending.pop(context.client)
        if not verdict.accepted:
            self._reject(
                context, attempt, BatchRejection(BatchRejectionKind.VALIDATOR, verdict.reason)
            )
        elif self._is_unchanged(context, attempt):
            assert attempt.result is not None, "it has passed the gate"
            self._accept(context, attempt, attempt.result)
        return True

    def rebase(self, context: ClientContext, abandon: Event) -> None:
        """Move what was learned on top of a newer version, if it still passes the gate there.

        It is tried as it is; if that fails, the items are learned anew from the new version; if
        that fails too, they are rejected with the reason. Nothing is done while a part is in an
        update without a receipt, since the new version may contain some of it already.
        """
        store, model, adapter = context.store, context.model, context.adapter
        local = store.local_model(model.run)
        if local is None or local.version >= model.version or "riding" in local.parts:
            return
        learned = store.items("learned")
        batch = self._builder(context).build(
            learned or store.items("settled", newest=RECENT_SETTLED), adapter, split=False
        )
        own = add_tensors(*local.parts.values()) or {}
        # Factors of a version that was factorised anew have nothing in common with earlier ones.
        moved = add_tensors(adapter, own) if own and not model.refactored else None
        if moved is not None and batch.new_sets:
            figures = compare(context.shadow, self._config, batch, adapter, moved, own)
            passes = gate.check(figures, self._config) is None
            if passes and (learned or still_helps(figures)):
                store.rebase(model.run, model.version, moved, local.parts)
                return
        if learned:
            self._relearn(context, batch, abandon)
        else:  # the global version knows by now what this client taught it
            store.rebase(model.run, model.version, None, {})

    def can_attach(self, context: ClientContext, unsent: Tensors) -> bool:
        """Return whether a task on the context's version may start with `unsent` on top of it."""
        if context.model.refactored:
            return False
        batch = self._builder(context).build(
            context.store.items("learned"), context.adapter, split=False
        )
        if not batch.new_sets:
            return False
        moved = add_tensors(context.adapter, unsent) or context.adapter
        figures = compare(context.shadow, self._config, batch, context.adapter, moved, unsent)
        return gate.check(figures, self._config) is None

    def is_pending(self, client: str) -> bool:
        """Return whether a batch of this client waits for a verdict, or for its application."""
        return client in self._pending

    def _relearn(self, context: ClientContext, batch: LearningBatch, abandon: Event) -> None:
        """Learn items anew from the context's version, or reject them."""
        model, adapter = context.model, context.adapter
        attempt = Attempt(model, None, batch, self._clock())
        if not batch.training_sets:
            self._give_up(context, attempt, "none of the items is usable any more")
            return
        try:
            copy = context.shadow.train(
                adapter, batch.training_sets, model.version, _until_set(abandon)
            )
        except ModelError as error:
            self._give_up(context, attempt, error.what)
            return
        if copy is None:
            return
        learned = difference(copy.adapter, adapter)
        result = evaluate(context.shadow, self._config, batch, adapter, learned, ())
        attempt = replace(attempt, result=result, steps=copy.steps, seconds=copy.seconds)
        if result.rejection is not None:
            self._give_up(context, attempt, result.rejection.reason)
            return
        parts = {"unsent": result.learned}
        context.store.rebase(model.run, model.version, result.after, parts)
        count = len(context.store.items("learned"))
        text = f"{count} items learned again on version {model.version}"
        self._on_event(WorkerEventKind.REBASED, f"{context.client}: {text}")

    def _is_unchanged(self, context: ClientContext, attempt: Attempt) -> bool:
        """Return whether the items still wait and the model is the one that was trained from."""
        waiting = {stored.id for stored in context.store.items("waiting")}
        if not waiting.issuperset(stored.id for stored in attempt.batch.items):
            return False
        return _same_model(attempt.local, context.store.local_model(context.model.run))

    def _accept(self, context: ClientContext, attempt: Attempt, result: GateResult) -> None:
        context.store.accept(
            attempt.record("accepted"),
            [stored.id for stored in attempt.batch.train],
            [stored.id for stored in attempt.batch.held_out],
            result.learned,
            result.after,
            attempt.measured,
        )
        self._on_event(WorkerEventKind.LEARNED, f"{context.client}: {attempt.summary()}")

    def _reject(self, context: ClientContext, attempt: Attempt, rejection: BatchRejection) -> None:
        ids = [stored.id for stored in attempt.batch.items]
        public = rejection.public_reason
        context.store.reject(attempt.record("rejected", public), ids, rejection.reason)
        self._on_event(
            WorkerEventKind.UNLEARNED, f"{context.client}: {len(ids)} items rejected: {public}"
        )

    def _give_up(self, context: ClientContext, attempt: Attempt, reason: str) -> None:
        reason = f"after version {context.model.version}: {reason}"
        context.store.discard(attempt.record("rejected", reason))
        count = len(attempt.batch.items)
        self._on_event(
            WorkerEventKind.UNLEARNED, f"{context.client}: {count} items given up {reason}"
        )

    def _builder(self, context: ClientContext) -> BatchBuilder:
        return BatchBuilder(context, self._data, self._config)


def _make_request(
    context: ClientContext, batch: LearningBatch, start: Tensors, result: GateResult
) -> validator.ValidationRequest:
    figures = result.figures
    first, *_ = items = batch.items
    few = (batch.held_out or batch.train)[:VALIDATOR_SAMPLES]
    before, after = (
        context.shadow.answers(adapter, first.item.kind, few) for adapter in (start, result.after)
    )
    return validator.ValidationRequest(
        client_id=context.client,
        kind=first.item.kind,
        task=first.item.task,
        items=len(items),
        new_before=figures.new_before,
        new_after=figures.new_after,
        anchor_before=figures.anchor_before,
        anchor_after=figures.anchor_after,
        norm=figures.norm,
        samples=tuple(
            validator.ValidationSample(
                *stored.item.question_and_answer, old, new, stored.item.rating
            )
            for stored, old, new in zip(few, before, after, strict=True)
        ),
    )


def _same_model(one: LocalModel | None, other: LocalModel | None) -> bool:
    """Return whether a client's model is unchanged; its parts may have been sent meanwhile."""
    if one is None or other is None:
        return one is other
    if one.version != other.version or one.current.keys() != other.current.keys():
        return False
    return all(np.array_equal(one.current[name], other.current[name]) for name in one.current)


def _why_unusable(stored: StoredItem, shadow: ShadowModel) -> str:
    if not shadow.learns(stored.item.kind):
        return f"this run's model does not learn {stored.item.kind} rows"
    return "the item is too long for this model, or its label is not a class of this run"


def _until_set(abandon: Event) -> Callable[[StepReport], bool]:
    return lambda _: not abandon.is_set()

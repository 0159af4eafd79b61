"""Batches to learn: new items among old rows, and everything that they are measured on.

Gathers examples from the inbox (`inbox/learning_store.py`) and from the client's own rows
(`worker/data/shards.py`). Before `shadow` in the path of an item. Nothing is written here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.config.config import IncrementalConfig
from common.errors import DataError
from common.protocol.fields import ROW_KINDS, RowKind
from common.protocol.tensors import Tensors
from common.protocol.versions import CurrentModel
from learning.evaluation.measurement import Measurement
from worker.data.shards import ClientData, ShardRequest, TokenisedShard
from worker.data.task_rows import HOLDOUT_EXAMPLES
from worker.incremental.inbox.items import StoredItem
from worker.incremental.inbox.learning_store import LearningStore
from worker.incremental.report.stream import OWN
from worker.incremental.training import replay
from worker.incremental.training.shadow import MeasurementSet, ShadowModel, TrainingSet, label_of

MAX_ANCHORS = 128
"""Anchors from the client's own rows. With few of them, chance moves the mean loss by as much as
the gate allows it to rise."""
MIN_ANCHORS = 24
"""Number below which anchors may be unbalanced: better skewed than so few that chance decides."""


@dataclass(frozen=True)
class ClientContext:
    """A client, its open inbox file, and the version (model and θ) on top of which it learns."""

    client: str
    store: LearningStore
    shadow: ShadowModel
    model: CurrentModel
    adapter: Tensors


@dataclass(frozen=True)
class LearningBatch:
    """Items that are ready to be learned, with their examples."""

    train: tuple[StoredItem, ...]
    held_out: tuple[StoredItem, ...]  # only measured on
    training_sets: tuple[TrainingSet, ...]  # of `train`, mixed with old rows, by kind
    new_sets: tuple[MeasurementSet, ...]  # of `held_out`, or of `train` if that is empty
    anchor_sets: tuple[MeasurementSet, ...]  # of what the model could do before
    unusable: tuple[StoredItem, ...]  # cannot be made into examples
    task_sets: tuple[MeasurementSet, ...] = ()  # of the same tasks, held out in earlier batches

    @property
    def items(self) -> tuple[StoredItem, ...]:
        """Items of the attempt; the unusable ones only if there are no others."""
        return (*self.train, *self.held_out) or self.unusable


class BatchBuilder:
    """Builder of batches from the items and rows of one client, for one model."""

    def __init__(self, context: ClientContext, data: ClientData, config: IncrementalConfig) -> None:
        self._client, self._model = context.client, context.model
        self._store, self._shadow = context.store, context.shadow
        self._data, self._config = data, config

    def build(self, items: Sequence[StoredItem], adapter: Tensors, *, split: bool) -> LearningBatch:
        """Encode items and gather what they are learned with and measured on.

        Judged answers are compared with the model of `adapter`. Without `split`, the same items
        are held out as before.
        """
        train: list[StoredItem] = []
        held_out: list[StoredItem] = []
        training: list[TrainingSet] = []
        new_sets: list[MeasurementSet] = []
        for kind in dict.fromkeys(stored.item.kind for stored in items):
            of_kind = [stored for stored in items if stored.item.kind == kind]
            examples, places = self._examples(kind, of_kind, adapter)
            usable = [of_kind[place] for place in places]
            trained, measured = _split(usable, split=split)
            train += [usable[i] for i in trained]
            held_out += [usable[i] for i in measured]
            new = [examples[i] for i in trained]
            if new:
                training.append(TrainingSet(kind, new, self._old(kind, items, len(new), adapter)))
            new_sets.append(MeasurementSet(kind, [examples[i] for i in measured] or new))
        kinds = {stored.item.kind for stored in items}
        used = {stored.id for stored in (*train, *held_out)}
        return LearningBatch(
            tuple(train),
            tuple(held_out),
            tuple(training),
            tuple(new_sets),
            self._anchors(kinds, items, adapter),
            tuple(stored for stored in items if stored.id not in used),
            self._task_sets(kinds, items, adapter),
        )

    def measure_stream(
        self, batch: LearningBatch, adapter: Tensors
    ) -> dict[str, tuple[Measurement, int]]:
        """Return measurement and number of examples of each task so far, and of the own rows."""
        found: dict[str, tuple[Measurement, int]] = {}

        def measure(task: str, kind: RowKind, examples: Sequence[Any]) -> None:
            measured = self._shadow.measure(adapter, [MeasurementSet(kind, examples)])
            if measured is not None:
                found[task] = measured, len(examples)

        for kind in {stored.item.kind for stored in (*batch.train, *batch.held_out)}:
            measure(OWN, kind, self._own_holdout(kind)[:HOLDOUT_EXAMPLES])
            known = self._store.items("learned", "settled", kind=kind)
            new = [stored for stored in batch.train if stored.item.kind == kind]
            held = [stored for stored in batch.held_out if stored.item.kind == kind]
            measuring = [stored for stored in known if stored.held_out] + held
            for task in dict.fromkeys(stored.item.task for stored in (*known, *new, *held)):
                # A task of which nothing is held out is measured on what was trained on.
                chosen = _of_task(measuring, task) or _of_task([*known, *new], task)
                measure(task, kind, self._examples(kind, chosen[-HOLDOUT_EXAMPLES:], adapter)[0])
        return found

    def _examples(
        self, kind: RowKind, items: Sequence[StoredItem], adapter: Tensors
    ) -> tuple[list[Any], list[int]]:
        if not items or not self._shadow.learns(kind):
            return [], []
        examples, places = self._shadow.encode(kind, items)
        return self._shadow.with_reference(kind, examples, adapter), places

    def _old(
        self, kind: RowKind, without: Sequence[StoredItem], new: int, adapter: Tensors
    ) -> list[Any]:
        """Return old rows to train on: the client's own, and what it learned earlier.

        They are balanced over the classes of each task: balanced over classes alone, the first
        tasks of a stream would be lost among the client's own rows, which are many more.
        """
        config = self._config
        if not config.replay or not config.reservoir:
            return []
        steps = replay.step_count(new, config.batch_size, config.replay, config.steps)
        size = min(config.reservoir, round(steps * config.batch_size * config.replay))
        earlier = self._earlier(kind, without, held_out=False, newest=config.reservoir)
        learned, places = self._shadow.encode(kind, earlier)
        own = self._own(kind)
        rows = [(OWN, example) for example in (own.train if own else ())]
        rows += zip([earlier[place].item.task for place in places], learned, strict=True)
        chosen = replay.balanced_sample(
            rows, size, len(rows), lambda row: (row[0], label_of(row[1]))
        )
        return self._shadow.with_reference(kind, [example for _, example in chosen], adapter)

    def _anchors(
        self, kinds: set[RowKind], without: Sequence[StoredItem], adapter: Tensors
    ) -> tuple[MeasurementSet, ...]:
        """Return the client's holdout with earlier held-out items, balanced over tasks.

        The holdout is balanced over classes, as in training: for a client whose rows are nearly all
        of one class, a model that always predicts that class would look good.

        No task may be missing, since wrong items about a task show in what is known of that task. A
        client without rows of the items' kinds is measured on its rows of the phase's kind.
        """
        sets = []
        for kind in (
            kinds if any(self._own(k) for k in kinds) else {ROW_KINDS[self._model.objective]}
        ):
            earlier = self._earlier(kind, without, held_out=True)
            chosen = replay.balanced_sample(
                earlier, HOLDOUT_EXAMPLES, len(earlier), lambda stored: stored.item.task
            )
            held_out, _ = self._examples(kind, chosen, adapter)
            rows = replay.balanced_prefix(self._own_holdout(kind), MIN_ANCHORS, label_of)
            own = self._shadow.with_reference(kind, rows[:MAX_ANCHORS], adapter)
            sets.append(MeasurementSet(kind, [*own, *held_out]))
        return tuple(sets)

    def _task_sets(
        self, kinds: set[RowKind], items: Sequence[StoredItem], adapter: Tensors
    ) -> tuple[MeasurementSet, ...]:
        tasks = {(stored.item.kind, stored.item.task) for stored in items}
        sets = []
        for kind in kinds:
            earlier = self._earlier(kind, items, held_out=True)
            same = [stored for stored in earlier if (kind, stored.item.task) in tasks]
            examples, _ = self._examples(kind, same[-HOLDOUT_EXAMPLES:], adapter)
            sets.append(MeasurementSet(kind, examples))
        return tuple(sets)

    def _earlier(
        self,
        kind: RowKind,
        without: Sequence[StoredItem],
        *,
        held_out: bool,
        newest: int | None = None,
    ) -> list[StoredItem]:
        """Return items that were learned before, except those of the current batch."""
        ids = {stored.id for stored in without}
        found = self._store.items("learned", "settled", kind=kind, held_out=held_out, newest=newest)
        return [stored for stored in found if stored.id not in ids]

    def _own_holdout(self, kind: RowKind) -> Sequence[Any]:
        own = self._own(kind)
        return own.holdout if own else ()

    def _own(self, kind: RowKind) -> TokenisedShard | None:
        request = ShardRequest(
            self._client, kind, self._model.labels, self._model.max_length, self._model.prompt
        )
        try:
            return self._shadow.load_rows(self._data, request)
        except DataError:
            return None


def _of_task(items: Sequence[StoredItem], task: str) -> list[StoredItem]:
    return [stored for stored in items if stored.item.task == task]


def _split(items: Sequence[StoredItem], *, split: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if split:
        return replay.split_held_out([stored.item.key for stored in items])
    places = range(len(items))
    held_out = tuple(place for place in places if items[place].held_out)
    return tuple(place for place in places if not items[place].held_out), held_out

"""Shadow model: trains and measures a copy of a client's adapter; the serving one is untouched.

After `batches` in the path of an item, before `evaluation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.config.config import IncrementalConfig
from common.protocol.fields import ROW_KINDS, ObjectiveName, RowKind
from common.protocol.tasks import LocalTraining
from common.protocol.tensors import Tensors
from common.protocol.versions import CurrentModel
from learning.evaluation.inference import restore_order, row_nats
from learning.evaluation.measurement import Measurement
from learning.models import lora
from learning.models.adapted import AdapterModel
from learning.objectives import classification, registry
from learning.objectives.kto import TokenisedRating
from learning.training import loop
from learning.training.memory import FittedMemory
from worker.data.shards import ClientData, ShardRequest, TokenisedShard
from worker.incremental.inbox.items import StoredItem
from worker.incremental.training import replay

LR_LORA: Mapping[RowKind, float] = {"cls": 3e-4, "sft": 5e-4, "va": 5e-4, "kto": 3e-5}
"""AdamW's learning rate at the first step. With 5e-4 a pretrained encoder forgets more than the
gate allows (docs/log.md). One thumbs down has no better answer to pull towards: with 5e-5, five
steps make good answers of a small model so much less probable that the gate rejects it."""
LR_FULL = 1e-5
SMOOTHING = 0.1
"""Label smoothing for users' classes. A few dozen texts, repeated often, are soon classified right;
from then on training only makes the model overconfident, which the anchors pay for (figures:
docs/log.md)."""
OBJECTIVES: Mapping[RowKind, ObjectiveName] = {kind: name for name, kind in ROW_KINDS.items()}


@dataclass(frozen=True)
class MeasurementSet:
    """Examples of one kind to measure on."""

    kind: RowKind
    examples: Sequence[Any]


@dataclass(frozen=True)
class TrainingSet:
    """Examples of one kind to train on."""

    kind: RowKind
    new: Sequence[Any]  # from the inbox
    old: Sequence[Any]  # rows that the client had before, if any


@dataclass(frozen=True)
class TrainedCopy:
    """Trained copy of an adapter, with the steps and seconds that it took."""

    adapter: Tensors
    steps: int
    seconds: float


class ShadowModel:
    """Borrowed base model, whose adapter is overwritten by each method."""

    def __init__(
        self,
        loaded: AdapterModel,
        model: CurrentModel,
        config: IncrementalConfig,
        *,
        autocast: bool,
        memory: FittedMemory | None = None,
    ) -> None:
        self._memory = memory or FittedMemory()
        self._model, self._tokenizer = loaded.model, loaded.tokenizer
        self._current, self._config, self._autocast = model, config, autocast

    def learns(self, kind: RowKind) -> bool:
        """Return whether this model can learn items of a kind."""
        return (kind == "cls") == (self._current.objective == "classification")

    def encode(self, kind: RowKind, items: Sequence[StoredItem]) -> tuple[list[Any], list[int]]:
        """Return the examples of the usable items, and the indices of these items."""
        rows = [stored.item.row for stored in items]
        found = self._objective(kind).encode(self._tokenizer, rows, self._current.max_length)
        return list(found.examples), list(found.kept)

    def load_rows(self, data: ClientData, request: ShardRequest) -> TokenisedShard:
        return data.load(request, self._objective(request.kind), self._tokenizer)

    def with_reference(self, kind: RowKind, examples: Sequence[Any], adapter: Tensors) -> list[Any]:
        """Return judged answers with their log-probabilities by `adapter`, others unchanged."""
        objective = self._objective(kind)
        answers = [objective.answers(example) for example in examples]
        flat = [answer for own in answers for answer in own]
        if not flat:
            return list(examples)
        lora.write_adapter(self._model, adapter)
        nats = iter(row_nats(self._model, flat, autocast=self._autocast))
        return [
            objective.with_reference(example, [-next(nats) for _ in own])
            for example, own in zip(examples, answers, strict=True)
        ]

    def measure(self, adapter: Tensors, sets: Sequence[MeasurementSet]) -> Measurement | None:
        """Return mean loss and accuracy over all examples; None if there are none."""
        lora.write_adapter(self._model, adapter)
        found = [
            (
                len(each.examples),
                self._objective(each.kind).measure(
                    self._model, each.examples, autocast=self._autocast
                ),
            )
            for each in sets
            if each.examples
        ]
        total = sum(count for count, _ in found)
        if not total:
            return None
        loss = sum(count * m.loss for count, m in found) / total
        known = [(count, m.accuracy) for count, m in found if m.accuracy is not None]
        counted = sum(count for count, _ in known)
        right = sum(count * accuracy for count, accuracy in known)
        return Measurement(loss, right / counted if counted else None)

    def train(
        self,
        adapter: Tensors,
        sets: Sequence[TrainingSet],
        seed: int,
        on_step: Callable[[loop.StepReport], bool],
    ) -> TrainedCopy | None:
        """Train a copy of the adapter and return it; None if `on_step` returned False.

        Raises:
            ModelError: Training diverged.
        """
        config = self._config
        lora.write_adapter(self._model, adapter)
        lora.freeze_a(self._model, frozen=self._current.frozen is not None)
        steps, seconds = 0, 0.0
        for training in sets:
            share = config.replay if training.old else 0.0
            count = replay.step_count(len(training.new), config.batch_size, share, config.steps)
            examples = replay.mix(training.new, training.old, count * config.batch_size, share)
            if training.kind == "cls":  # a correction says nothing about the frequency of its class
                classes = len(self._current.labels)
                examples = list(classification.with_logit_adjustment(examples, classes, 1.0))
            settings = LocalTraining(
                batch_size=config.batch_size,
                lr=learning_rate(config, training.kind, full=self._current.lora is None),
                steps=count,
                max_length=self._current.max_length,
            )
            kind = (self._current.base.digest, self._current.lora, training.kind)
            result = loop.train(
                self._model,
                self._objective(training.kind, SMOOTHING),
                examples,
                settings,
                on_step,
                seed=seed,
                autocast=self._autocast,
                decay=True,
                memory=self._memory.get(kind),
            )
            self._memory.remember(kind, result.memory)
            if result.stopped:
                return None
            steps, seconds = steps + result.steps, seconds + result.seconds
        return TrainedCopy(lora.read_adapter(self._model), steps, seconds)

    def answers(self, adapter: Tensors, kind: RowKind, items: Sequence[StoredItem]) -> list[str]:
        """Return predicted classes; empty strings for other kinds, whose answers take too long."""
        if kind != "cls" or not items:
            return ["" for _ in items]
        lora.write_adapter(self._model, adapter)
        texts, places = self.encode(kind, items)
        found = classification.predict(self._model, texts, autocast=self._autocast)
        names = ["" for _ in items]
        # `predict` sorts by length, and so are its results.
        for place, label in zip(places, restore_order(found.predicted, texts), strict=True):
            names[place] = self._current.labels[label]
        return names

    def _objective(self, kind: RowKind, smoothing: float = 0.0) -> registry.Objective:
        current = self._current
        settings = current.kto if kind == "kto" else current.dpo
        return registry.make_objective(
            OBJECTIVES[kind], settings, current.labels, smoothing, current.prompt
        )


def learning_rate(config: IncrementalConfig, kind: RowKind, *, full: bool) -> float:
    """Return the learning rate; `full` if all parameters are trained."""
    return config.lr or (LR_FULL if full else LR_LORA[kind])


def label_of(example: object) -> object:
    """Return what samples are balanced by: a text's class, or whether an answer is good; or None.

    Of ratings that are mostly good, a model would mostly learn to find any answer more probable.
    """
    return example.good if isinstance(example, TokenisedRating) else getattr(example, "label", None)


def difference(new: Tensors, old: Tensors) -> Tensors:
    """Return new − old, by name."""
    return {name: new[name] - old[name] for name in new}

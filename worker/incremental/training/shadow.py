"""Trains and measures a shadow copy of a client's model. The model that serves is not touched.

After `mixing` on an item's way, before `gate`.
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
from learning.data.row_types import Instruction, LabelledText, PreferencePair
from learning.evaluation.inference import restore_order
from learning.evaluation.measurement import Measurement
from learning.models import lora
from learning.objectives import classification, dpo, registry
from learning.training import loop
from worker.data.shards import TokenisedShard
from worker.incremental.inbox.learning_store import Entry
from worker.incremental.training import replay
from worker.models.loaded import AdapterModel

LR_LORA: Mapping[RowKind, float] = {"cls": 3e-4, "sft": 5e-4, "va": 5e-4}
"""AdamW's, at the first step of a lesson. Of a pretrained encoder 5e-4 makes a client forget more
than its gate allows (docs/log.md)."""
LR_FULL = 1e-5
SMOOTHING = 0.1
"""Of the classes that users name. A few dozen texts, seen again and again, are soon right and then
only make the model surer of itself, which is what anchors pay for: docs/log.md has the figures."""
OBJECTIVES: Mapping[RowKind, ObjectiveName] = {kind: name for name, kind in ROW_KINDS.items()}
_ROWS: Mapping[RowKind, Callable[..., Any]] = {
    "sft": Instruction,
    "va": PreferencePair,
    "cls": LabelledText,
}


@dataclass(frozen=True)
class EvaluationSet:
    """Examples of one kind to measure by."""

    kind: RowKind
    examples: Sequence[Any]


@dataclass(frozen=True)
class TrainingSet:
    """Examples of one kind to learn.

    Attributes:
        kind: Of all of them.
        new: From the inbox.
        old: Rows that the client had before; empty where it has none of the kind.
    """

    kind: RowKind
    new: Sequence[Any]
    old: Sequence[Any]


@dataclass(frozen=True)
class TrainedCopy:
    """A shadow copy, and what it took."""

    adapter: Tensors
    steps: int
    seconds: float


class ShadowModel:
    """A loaded model, borrowed: its own adapter is overwritten."""

    def __init__(
        self,
        loaded: AdapterModel,
        model: CurrentModel,
        config: IncrementalConfig,
        *,
        autocast: bool,
    ) -> None:
        self._model, self._tokenizer = loaded.model, loaded.tokenizer
        self._about, self._config, self._autocast = model, config, autocast

    def learns(self, kind: RowKind) -> bool:
        """Whether this model can learn items of a kind."""
        return (kind == "cls") == (self._about.objective == "classification")

    def encode(self, kind: RowKind, entries: Sequence[Entry]) -> tuple[list[Any], list[int]]:
        """Examples of those items that can be used, and their places."""
        rows = [row(entry) for entry in entries]
        found = self._objective(kind).encode(self._tokenizer, rows, self._about.max_length)
        return list(found.examples), list(found.kept)

    def shard(self, kind: RowKind, read: Callable[[Any, Any], TokenisedShard]) -> TokenisedShard:
        """The client's own rows of a kind, by a reader that wants objective and tokenizer."""
        return read(self._objective(kind), self._tokenizer)

    def compared(self, kind: RowKind, examples: Sequence[Any], adapter: Tensors) -> list[Any]:
        """Preference pairs are compared with the model as it was; others with nothing."""
        if kind != "va" or not examples:
            return list(examples)
        lora.write_adapter(self._model, adapter)
        nats = dpo.log_probabilities(self._model, examples, autocast=self._autocast)
        return list(dpo.with_reference(examples, nats))

    def measure(self, adapter: Tensors, exams: Sequence[EvaluationSet]) -> Measurement | None:
        """Mean loss and accuracy over the examples of all exams; None where there are none."""
        lora.write_adapter(self._model, adapter)
        found = [
            (
                len(exam.examples),
                self._objective(exam.kind).measure(
                    self._model, exam.examples, autocast=self._autocast
                ),
            )
            for exam in exams
            if exam.examples
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
        lessons: Sequence[TrainingSet],
        seed: int,
        on_step: Callable[[loop.StepReport], bool],
    ) -> TrainedCopy | None:
        """A copy of the adapter that has learned; None if `on_step` ended it.

        Raises:
            ModelError: Training diverged.
        """
        config = self._config
        lora.write_adapter(self._model, adapter)
        steps, seconds = 0, 0.0
        for lesson in lessons:
            share = config.replay if lesson.old else 0.0
            count = replay.step_count(len(lesson.new), config.batch_size, share, config.steps)
            examples = replay.mix(lesson.new, lesson.old, count * config.batch_size, share)
            if lesson.kind == "cls":  # a correction says nothing of how frequent its class is
                classes = len(self._about.labels)
                examples = list(classification.with_logit_adjustment(examples, classes, 1.0))
            training = LocalTraining(
                batch_size=config.batch_size,
                lr=learning_rate(config, lesson.kind, full=self._about.lora is None),
                steps=count,
                max_length=self._about.max_length,
            )
            objective = self._objective(lesson.kind, SMOOTHING)
            result = loop.train(
                self._model,
                objective,
                examples,
                training,
                on_step,
                seed=seed,
                autocast=self._autocast,
                decay=True,
            )
            if result.stopped:
                return None
            steps, seconds = steps + result.steps, seconds + result.seconds
        return TrainedCopy(lora.read_adapter(self._model), steps, seconds)

    def answers(self, adapter: Tensors, kind: RowKind, entries: Sequence[Entry]) -> list[str]:
        """What the model says of a few items: a class, or (sft) nothing that is cheap to have."""
        if kind != "cls" or not entries:
            return ["" for _ in entries]
        lora.write_adapter(self._model, adapter)
        texts, places = self.encode(kind, entries)
        found = classification.predict(self._model, texts, autocast=self._autocast)
        names = ["" for _ in entries]
        # `predict` goes by length, and so does what it found.
        for place, label in zip(places, restore_order(found.predicted, texts), strict=True):
            names[place] = self._about.labels[label]
        return names

    def _objective(self, kind: RowKind, smoothing: float = 0.0) -> registry.Objective:
        about = self._about
        return registry.make_objective(OBJECTIVES[kind], about.dpo, about.labels, smoothing)


def row(entry: Entry) -> Any:
    """An item as a row of its kind."""
    return _ROWS[entry.kind](**entry.fields)


def learning_rate(config: IncrementalConfig, kind: RowKind, *, full: bool) -> float:
    """The learning rate of a lesson; `full` where all parameters are trained."""
    return config.lr or (LR_FULL if full else LR_LORA[kind])


def label_of(example: object) -> object:
    """What a reservoir is balanced by: the class of a text; other examples are all alike."""
    return getattr(example, "label", None)


def difference(new: Tensors, old: Tensors) -> Tensors:
    """New − old, by name."""
    return {name: new[name] - old[name] for name in new}

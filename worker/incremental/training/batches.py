"""What is to be learned, what it is measured by, and how an attempt went.

Gathers examples from the inbox (`book`) and from the client's own rows (`worker/data/shards.py`), lets
`shadow` train and measure, and asks `gate`. Nothing is written here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.config.config import IncrementalConfig
from common.errors import DataError
from common.protocol.fields import ROW_KINDS, RowKind
from common.protocol.tensors import Tensors
from common.protocol.versions import CurrentModel
from learning.evaluation.measurement import Measurement
from worker.data.shards import HOLDOUT_EXAMPLES, ClientData, ShardRequest, TokenisedShard
from worker.incremental.inbox.learning_store import Entry, LearningStore, add_tensors
from worker.incremental.training import replay
from worker.incremental.training.gate import GateFigures, refusal
from worker.incremental.training.shadow import EvaluationSet, ShadowModel, TrainingSet, label_of
from worker.trainer import l2_norm

MAX_ANCHORS = (
    128  # rows of the client's own: on few, chance moves the mean loss by what it may rise
)
MIN_ANCHORS = 24  # of them: better skewed than so few that chance decides
SHARES = (1.0, 0.5)
"""Of a lesson, tried in turn. Near a model that is good at its anchors their loss rises with the
square of a step, and what is new is learned in proportion to it: half of a lesson that forgets too
much is worth half of it at a quarter of the price. No smaller part: what contradicts the anchors
harms them in proportion, and a quarter of flipped labels was hardly more than they tolerate."""
PERSONAL_GAIN = 0.98  # of the global version's loss on settled items, for what is kept beside it


@dataclass(frozen=True)
class LearningBatch:
    """Some items, ready to learn.

    Attributes:
        train: Those to train on.
        held: Those that measure and are never trained on.
        lessons: Examples of `train` among old rows, of each kind.
        exams: Examples of `held`, or of `train` where too few came to hold any out.
        anchors: What the model could before.
        unusable: Those that make no example, with the reason.
        known: Items of the same tasks that were learned before and are held out.
    """

    train: tuple[Entry, ...]
    held: tuple[Entry, ...]
    lessons: tuple[TrainingSet, ...]
    exams: tuple[EvaluationSet, ...]
    anchors: tuple[EvaluationSet, ...]
    unusable: tuple[Entry, ...]
    known: tuple[EvaluationSet, ...] = ()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The items that the attempt is about: those of no use only where there are no others."""
        return (*self.train, *self.held) or self.unusable


@dataclass(frozen=True)
class GateResult:
    """What the gate says of a lesson.

    Attributes:
        learned: The part of it that may be kept; all of it where none may.
        after: The model with that.
        figures: What is known of it.
        share: How much of the lesson that is.
        reason: Why it may not be kept; empty where it may.
    """

    learned: Tensors
    after: Tensors
    figures: GateFigures
    share: float
    reason: str


class BatchBuilder:
    """One client's rows and items, for one model."""

    def __init__(
        self,
        client: str,
        book: LearningStore,
        shadow: ShadowModel,
        data: ClientData,
        model: CurrentModel,
        config: IncrementalConfig,
    ) -> None:
        self._client, self._book, self._shadow = client, book, shadow
        self._data, self._model, self._config = data, model, config

    def prepared(self, entries: Sequence[Entry], adapter: Tensors, *, split: bool) -> LearningBatch:
        """Items and what they are learned with.

        Args:
            entries: Of any kinds.
            adapter: The model that pairs are compared with.
            split: Hold some out; False where that was done before.
        """
        train: list[Entry] = []
        held: list[Entry] = []
        lessons: list[TrainingSet] = []
        exams: list[EvaluationSet] = []
        usable: set[int] = set()
        for kind in dict.fromkeys(entry.kind for entry in entries):
            of_kind = [entry for entry in entries if entry.kind == kind]
            examples, places = self._examples(kind, of_kind, adapter)
            kept = [of_kind[place] for place in places]
            usable |= {entry.id for entry in kept}
            trained, measured = _parted(kept, split=split)
            train += [kept[place] for place in trained]
            held += [kept[place] for place in measured]
            new = [examples[place] for place in trained]
            if new:
                lessons.append(TrainingSet(kind, new, self._old(kind, entries, len(new), adapter)))
            exams.append(EvaluationSet(kind, [examples[place] for place in measured] or new))
        kinds = {entry.kind for entry in entries}
        return LearningBatch(
            tuple(train),
            tuple(held),
            tuple(lessons),
            tuple(exams),
            self._anchors(kinds, entries, adapter),
            tuple(entry for entry in entries if entry.id not in usable),
            self._known(kinds, entries, adapter),
        )

    def judge(
        self, prepared: LearningBatch, begun: Tensors, learned: Tensors, parts: Sequence[Tensors]
    ) -> GateResult:
        """The largest of `SHARES` of what was learned that the gate lets pass.

        Args:
            prepared: With its exams.
            begun: The model as it was.
            learned: What the shadow copy has on top of it.
            parts: What the client had learned before, on top of the global version.
        """
        whole: GateResult | None = None
        for share in SHARES:
            part = {name: share * tensor for name, tensor in learned.items()}
            after = add_tensors(begun, part) or begun
            own = add_tensors(part, *parts) or part
            known = whole.figures if whole else None
            figures = self.compare(prepared, begun, after, own, known)
            found = GateResult(part, after, figures, share, self.refusal(figures))
            if not found.reason:
                return found
            whole = whole or found
        assert whole is not None
        return whole

    def compare(
        self,
        prepared: LearningBatch,
        before: Tensors,
        after: Tensors,
        own: Tensors,
        known: GateFigures | None = None,
    ) -> GateFigures:
        """What is known of a shadow copy.

        Args:
            prepared: With its exams.
            before: The model as it was.
            after: The copy.
            own: All that the client then has on top of the global version.
            known: Of another copy, by which the model as it was need not be measured again.
        """
        shadow = self._shadow
        new, old = prepared.exams, prepared.anchors
        base = difference_norm(after, own)
        return GateFigures(
            new_before=known.new_before if known else _measured(shadow.measure(before, new)),
            new_after=_measured(shadow.measure(after, new)),
            anchor_before=known.anchor_before if known else shadow.measure(before, old),
            anchor_after=shadow.measure(after, old),
            norm=l2_norm(own),
            limit=self._config.max_norm * base,
            task_before=known.task_before if known else shadow.measure(before, prepared.known),
            task_after=shadow.measure(after, prepared.known),
        )

    def refusal(self, figures: GateFigures) -> str:
        """What the gate says; empty where it lets pass."""
        return refusal(figures, self._config)

    def stream(
        self, prepared: LearningBatch, adapter: Tensors
    ) -> dict[str, tuple[Measurement, int]]:
        """The model on each task of the stream that it can do, and on the client's own rows."""
        kinds = {entry.kind for entry in (*prepared.train, *prepared.held)}
        found: dict[str, tuple[Measurement, int]] = {}
        for kind in kinds:
            self._measure(
                found, "", adapter, EvaluationSet(kind, self._own_holdout(kind)[:HOLDOUT_EXAMPLES])
            )
            known = self._book.entries("learned", "settled", kind=kind)
            fresh = [entry for entry in prepared.train if entry.kind == kind]
            held = [entry for entry in prepared.held if entry.kind == kind]
            for task in dict.fromkeys(entry.task for entry in (*known, *fresh, *held)):
                here = [e for e in (*known, *held) if e.task == task and (e.held or e in held)]
                chosen = here or [e for e in (*known, *fresh) if e.task == task]
                examples, _ = self._examples(kind, chosen[-HOLDOUT_EXAMPLES:], adapter)
                self._measure(found, task, adapter, EvaluationSet(kind, examples))
        return found

    def _measure(
        self,
        found: dict[str, tuple[Measurement, int]],
        task: str,
        adapter: Tensors,
        exam: EvaluationSet,
    ) -> None:
        if (measured := self._shadow.measure(adapter, [exam])) is not None:
            found[task] = measured, len(exam.examples)

    def _examples(
        self, kind: RowKind, entries: Sequence[Entry], adapter: Tensors
    ) -> tuple[list[Any], list[int]]:
        if not entries or not self._shadow.learns(kind):
            return [], []
        examples, places = self._shadow.encode(kind, entries)
        return self._shadow.compared(kind, examples, adapter), places

    def _old(
        self, kind: RowKind, without: Sequence[Entry], new: int, adapter: Tensors
    ) -> list[Any]:
        """Old rows for a lesson: the client's own, and what it learned before.

        Each class of each task alike: balanced by class alone, the first tasks of a stream are lost
        among the client's own rows, which are many more.
        """
        config = self._config
        if not config.replay or not config.reservoir:
            return []
        steps = replay.step_count(new, config.batch_size, config.replay, config.steps)
        wanted = min(config.reservoir, round(steps * config.batch_size * config.replay))
        before = self._before(kind, without, held=False, newest=config.reservoir)
        learned, places = self._shadow.encode(kind, before)
        own = self._own(kind)
        rows = [("", example) for example in (own.train if own else ())]
        tasks = [before[place].task for place in places]
        rows += zip(tasks, learned, strict=True)
        chosen = replay.balanced_sample(
            rows, wanted, len(rows), lambda row: (row[0], label_of(row[1]))
        )
        return self._shadow.compared(kind, [example for _, example in chosen], adapter)

    def _anchors(
        self, kinds: set[RowKind], without: Sequence[Entry], adapter: Tensors
    ) -> tuple[EvaluationSet, ...]:
        """The client's holdout, and held out items that it has learned before, each task alike.

        Of the holdout each class alike, as in what is learned: a client whose rows are nearly all
        of one class would call a model good that calls everything so.

        What lies about a task is seen by what is known of that task, so none may drop out. A client
        without rows of the items' kind is measured on those of the phase.
        """
        exams = []
        for kind in (
            kinds if any(self._own(k) for k in kinds) else {ROW_KINDS[self._model.objective]}
        ):
            known = self._before(kind, without, held=True)
            chosen = replay.balanced_sample(known, HOLDOUT_EXAMPLES, len(known), lambda e: e.task)
            held, _ = self._examples(kind, chosen, adapter)
            rows = replay.balanced_prefix(self._own_holdout(kind), MIN_ANCHORS, label_of)[
                :MAX_ANCHORS
            ]
            own = self._shadow.compared(kind, rows, adapter)
            exams.append(EvaluationSet(kind, [*own, *held]))
        return tuple(exams)

    def _known(
        self, kinds: set[RowKind], entries: Sequence[Entry], adapter: Tensors
    ) -> tuple[EvaluationSet, ...]:
        tasks = {(entry.kind, entry.task) for entry in entries}
        exams = []
        for kind in kinds:
            before = self._before(kind, entries, held=True)
            same = [entry for entry in before if (kind, entry.task) in tasks][-HOLDOUT_EXAMPLES:]
            exams.append(EvaluationSet(kind, self._examples(kind, same, adapter)[0]))
        return tuple(exams)

    def _before(
        self, kind: RowKind, without: Sequence[Entry], *, held: bool, newest: int | None = None
    ) -> list[Entry]:
        """What was learned before and is none of these."""
        ids = {entry.id for entry in without}
        found = self._book.entries("learned", "settled", kind=kind, held=held, newest=newest)
        return [entry for entry in found if entry.id not in ids]

    def _own_holdout(self, kind: RowKind) -> Sequence[Any]:
        own = self._own(kind)
        return own.holdout if own else ()

    def _own(self, kind: RowKind) -> TokenisedShard | None:
        wanted = ShardRequest(self._client, kind, self._model.labels, self._model.max_length)
        try:
            return self._shadow.shard(kind, lambda o, t: self._data.load(wanted, o, t))
        except DataError:
            return None


def helps(figures: GateFigures) -> bool:
    """Whether what the federation has already is still worth keeping beside it.

    The version may hold most of it by now: then the same again goes too far, which makes the loss
    on these very items better still, and is paid for elsewhere.
    """
    old, new = figures.anchor_before, figures.anchor_after
    if old is not None and new is not None and new.loss > old.loss:
        return False
    return figures.new_after.loss < PERSONAL_GAIN * figures.new_before.loss


def difference_norm(after: Tensors, own: Tensors) -> float:
    """L2 norm of the global version under a model: of after − own."""
    return l2_norm({name: after[name] - own[name] for name in after})


def _parted(entries: Sequence[Entry], *, split: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if split:
        return replay.split_held_out([entry.key for entry in entries])
    places = range(len(entries))
    held = tuple(place for place in places if entries[place].held)
    return tuple(place for place in places if not entries[place].held), held


def _measured(found: Measurement | None) -> Measurement:
    return found if found is not None else Measurement(math.inf)

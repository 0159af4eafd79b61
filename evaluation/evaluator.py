"""The rows on which a run is evaluated, and the model that takes one version after another.

The held-out rows are those that no client has; a client's validation rows those of its own that no
task reads. `evaluation.assessment` and `evaluation.comparison` decide who is examined on what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from common.config.config import PhaseConfig
from common.protocol.fields import RowKind
from common.protocol.tensors import Tensors
from evaluation.opening import Opened
from learning.data import prepared_data, splits
from learning.data import rows as rows_of
from learning.data.prepared_data import PreparedData
from learning.data.row_types import Row
from learning.evaluation import row_scores
from learning.evaluation.generation import generate
from learning.evaluation.inference import class_answers
from learning.evaluation.measurement import BATCH
from learning.evaluation.metrics import EvalMetrics
from learning.evaluation.row_scores import RowScorer, Scores
from learning.models import lora, objective_model
from learning.models.loader import LoadedModel
from learning.models.lora import AdaptedModel
from learning.training.device import Compute

HELDOUT = ""
"""The name of the held-out set among those of the clients."""
T = TypeVar("T")


@dataclass(frozen=True)
class EvaluationLimits:
    """How much is evaluated.

    Attributes:
        heldout: Held-out rows of each kind, at most.
        client: Validation rows of each client and kind, at most.
        samples: Rows that are answered with text, or shown with their classes.
        new_tokens: Length of an answer, at most.
    """

    heldout: Mapping[RowKind, int]
    client: Mapping[RowKind, int]
    samples: int = 3
    new_tokens: int = 30


FULL_LIMITS = EvaluationLimits(
    heldout=dict.fromkeys(("sft", "va", "cls"), splits.MAX_HELDOUT),
    client={"sft": 50, "va": 50, "cls": 200},
    new_tokens=40,
)
"""What the report at the end of a run looks at: every held-out row."""


@dataclass(frozen=True)
class EvaluationSet:
    """The rows of one kind, as one model reads them.

    Attributes:
        measure: How to score them.
        rows: Those that fit.
        examples: The same, tokenised.
        owners: The set that each belongs to: a client, or `HELDOUT`.
        clients: All clients, those without rows too.
        reference: The version that rewards compare with.
        beta: Of the rewards.
    """

    measure: RowScorer
    rows: Sequence[Row]
    examples: Sequence[Any]
    owners: Sequence[str]
    clients: tuple[str, ...]
    reference: int
    beta: float | None

    @property
    def kind(self) -> RowKind:
        """Of the rows."""
        return self.measure.kind

    def places(self, owners: Iterable[str]) -> list[int]:
        """Where the rows of some sets stand."""
        wanted = set(owners)
        return [i for i, owner in enumerate(self.owners) if owner in wanted]

    def spread(self, count: int) -> list[int]:
        """Places of a few held-out rows."""
        return pick_evenly(self.places([HELDOUT]), count)

    def figures(self, owners: Iterable[str], scores: Scores, reference: Scores) -> EvalMetrics:
        """The figures of some sets together."""
        places = self.places(owners)
        return self.measure.metrics(
            [self.examples[i] for i in places],
            [scores[i] for i in places],
            [reference[i] for i in places],
        )


class Evaluator:
    """One base model with an adapter's place, and the rows of its run."""

    def __init__(self, run: Opened, compute: Compute) -> None:
        self._run = run
        labels = run.labels
        objective = run.phases[0].objective
        self._loaded: LoadedModel = objective_model.load_for_objective(
            objective, run.base_path, labels, compute.device
        )
        # Its tensors are overwritten, so the seed does not matter.
        self.model: AdaptedModel = lora.attach(self._loaded.model, run.lora, seed=0)

    @cached_property
    def prepared(self) -> PreparedData:
        """The run's rows on the disk."""
        return prepared_data.load(self._run.directory / "clients")

    def become(self, tensors: Tensors) -> None:
        """Take the tensors of a version."""
        lora.write_adapter(self.model, tensors)
        self.model.eval()

    def score(self, exam: EvaluationSet) -> Scores:
        """What the model, as it is now, says of each row."""
        return exam.measure.score(self.model, exam.examples)

    def generate(
        self, prompts: Sequence[str], new_tokens: int, stopped: Callable[[], bool] = lambda: False
    ) -> list[str]:
        """What it answers."""
        return generate(self.model, self._loaded.tokenizer, prompts, new_tokens, stopped)

    def classify(self, exam: EvaluationSet) -> list[tuple[int, float]]:
        """The likeliest class of each row, and its probability."""
        return class_answers(self.model, exam.examples, BATCH)

    def exam(self, kind: RowKind, version: int, sizes: EvaluationLimits) -> EvaluationSet:
        """The held-out rows of a kind, and each client's validation rows."""
        sets: dict[str, Sequence[Row]] = {HELDOUT: self.heldout(kind, sizes.heldout[kind])}
        for shard in self.prepared.shards:
            if shard.kind == kind:
                validation = splits.split_rows(rows_of.read(kind, shard.path).rows).validation
                sets[shard.client_id] = pick_evenly(validation, sizes.client[kind])
        rows = [(name, row) for name, own in sets.items() for row in own]
        return self.encode(kind, version, rows, tuple(name for name in sets if name != HELDOUT))

    def heldout(self, kind: RowKind, count: int) -> list[Row]:
        """Rows that no client has."""
        return pick_evenly(rows_of.read(kind, self.prepared.heldout[kind]).rows, count)

    def encode(
        self,
        kind: RowKind,
        version: int,
        rows: Sequence[tuple[str, Row]],
        clients: tuple[str, ...] = (),
    ) -> EvaluationSet:
        """Rows of named sets, tokenised by this model; those that do not fit are left out."""
        reference, phase = reward_reference(self._run.phases, version)
        measure = row_scores.make_scorer(kind, phase.dpo if phase else None, self._run.labels)
        encoded = measure.objective.encode(
            self._loaded.tokenizer, [row for _, row in rows], self._run.max_length
        )
        return EvaluationSet(
            measure=measure,
            rows=[rows[i][1] for i in encoded.kept],
            examples=encoded.examples,
            owners=[rows[i][0] for i in encoded.kept],
            clients=clients,
            reference=reference if kind == "va" else 0,
            beta=phase.beta if phase and kind == "va" else None,
        )


def reward_reference(phases: Sequence[PhaseConfig], version: int) -> tuple[int, PhaseConfig | None]:
    """The version that rewards of a version compare with, and the phase that says how.

    That with which the newest phase of preferences began; before any has begun, version 0 with the
    settings of the first.
    """
    began, found = 0, next((phase for phase in phases if phase.objective == "dpo"), None)
    start = 0
    for phase in phases:
        if phase.objective == "dpo" and start <= version:
            began, found = start, phase
        start += phase.versions
    return began, found


def pick_evenly(rows: Sequence[T], count: int) -> list[T]:
    """At most `count` rows from beginning to end, always the same ones, in their order."""
    kept = min(count, len(rows))
    return [rows[i * len(rows) // kept] for i in range(kept)]

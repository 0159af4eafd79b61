"""The rows on which a run is evaluated, and the model that loads one version after another.

Held-out rows belong to no client. A client's validation rows are those of its own rows that no task
reads. `evaluation/assessment.py` and `evaluation/comparison.py` decide which versions are evaluated
on which rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, get_args

from common.config.config import PhaseConfig
from common.evaluation.metric_info import REWARD_KINDS
from common.protocol.fields import RowKind
from common.protocol.tasks import ModelPrecision
from common.protocol.tensors import Tensors
from common.run_directory.recorded_run import RecordedRun
from learning.data import prepared_data, splits
from learning.data import rows as rows_of
from learning.data.prepared_data import PreparedData
from learning.data.row_types import LabelledText, Row
from learning.evaluation import row_scores
from learning.evaluation.generation import generate
from learning.evaluation.inference import class_answers
from learning.evaluation.metrics import EvalMetrics
from learning.evaluation.row_scores import RowScorer, Scores
from learning.models import lora
from learning.models.adapted import AdapterModel, load_adapted
from learning.models.lora import AdaptedModel
from learning.models.precision import weight_format
from learning.prompts.form import prompt_form
from learning.training.device import Compute


def _ignore(rows: int) -> None:
    pass


HELDOUT = ""
"""The owner of held-out rows, among the names of clients."""
T = TypeVar("T")


@dataclass(frozen=True)
class EvaluationLimits:
    """Upper limits on what is evaluated."""

    heldout: Mapping[RowKind, int]  # rows of each kind
    client: Mapping[RowKind, int]  # validation rows of each client and kind
    samples: int = 3  # rows whose answers or classes are shown
    new_tokens: int = 30  # per answer
    tokens: int | None = None  # of all rows together, for each version; None: no limit
    recorded: bool = False  # show the answers that versions gave during the run, if there are any


FULL_LIMITS = EvaluationLimits(
    heldout=dict.fromkeys(get_args(RowKind), splits.MAX_HELDOUT),
    client={"sft": 50, "va": 50, "kto": 50, "cls": 200},
    new_tokens=40,
    recorded=True,
)
"""Limits of the report at the end of a run: every held-out row, but see `report_limits`."""
_WORK = {"cpu": 2e12, "cuda": 2e14}
"""Parameters × tokens of a report, for each version: about 20 seconds on two cores."""
_LEAST_TOKENS = 4096  # so that figures of a large model mean something, too


@dataclass(frozen=True)
class EvaluationRows:
    """Rows of one kind, tokenised for one model; those that do not fit are left out."""

    scorer: RowScorer
    rows: Sequence[Row]
    examples: Sequence[Any]  # the same rows, tokenised
    owners: Sequence[str]  # of each row: a client, or `HELDOUT`
    clients: tuple[str, ...]  # including those without rows
    reference: int  # the version with which rewards are compared
    beta: float | None  # β of the rewards
    available: int = 0  # rows that fit, of which these are a sample

    @property
    def kind(self) -> RowKind:
        return self.scorer.kind

    @property
    def has_rewards(self) -> bool:
        """Whether metrics compare a version with `reference`."""
        return self.kind in REWARD_KINDS

    def indexes(self, owners: Iterable[str]) -> list[int]:
        """Return the indexes of the rows of these owners."""
        owners = set(owners)
        return [i for i, owner in enumerate(self.owners) if owner in owners]

    def sample_indexes(self, count: int) -> list[int]:
        """Return the indexes of at most `count` held-out rows, spread evenly."""
        return pick_evenly(self.indexes([HELDOUT]), count)

    def costs(self) -> list[int]:
        """Return the number of tokens that the model reads for each row."""
        return row_scores.costs(self.scorer, self.examples)

    def thinned(self, tokens: int) -> EvaluationRows:
        """Return a sample that costs at most about `tokens`: the same share of each owner's rows.

        Each owner keeps one row at least.
        """
        share = min(1.0, tokens / max(1, sum(self.costs())))
        kept: list[int] = []
        for owner in dict.fromkeys(self.owners):
            own = self.indexes([owner])
            kept += pick_evenly(own, max(1, int(share * len(own))))
        return self._select(kept)

    def of(self, owners: Iterable[str]) -> EvaluationRows:
        """Return the rows of these owners alone."""
        return self._select(self.indexes(owners))

    def _select(self, indexes: Sequence[int]) -> EvaluationRows:
        return replace(
            self,
            rows=[self.rows[i] for i in indexes],
            examples=[self.examples[i] for i in indexes],
            owners=[self.owners[i] for i in indexes],
        )

    def metrics(self, owners: Iterable[str], scores: Scores, reference: Scores) -> EvalMetrics:
        """Return the metrics over all rows of these owners together."""
        indexes = self.indexes(owners)
        return self.scorer.metrics(
            [self.examples[i] for i in indexes],
            [scores[i] for i in indexes],
            [reference[i] for i in indexes],
        )


class Evaluator:
    """The model and the rows of a run; each is loaded when it is first needed.

    Loading the model raises `ModelError` if `base_path` cannot be loaded. Reading the rows raises
    `DataError` if they are gone.
    """

    def __init__(
        self,
        run: RecordedRun,
        base_path: Path,
        compute: Compute,
        precision: ModelPrecision | None = None,
    ) -> None:
        """Store the arguments; `precision` replaces that of the run."""
        self.run = run
        self.compute = compute
        self._base_path = base_path
        self._precision = precision or run.config.model.precision

    def unquantized(self) -> Evaluator:
        """Return an evaluator of the same run on its base model as the files have it."""
        precision = ModelPrecision(dtype=self.run.config.model.dtype)
        return Evaluator(self.run, self._base_path, self.compute, precision)

    @cached_property
    def _loaded(self) -> AdapterModel:
        config = self.run.config
        return load_adapted(
            config.phase[0].objective,
            self._base_path,
            self.run.labels,
            self.compute.device,
            config.model.lora,
            weight_format(self._precision, autocast=self.compute.autocast),
        )

    @property
    def model(self) -> AdaptedModel:
        return self._loaded.model

    @cached_property
    def prepared(self) -> PreparedData:
        return prepared_data.load(self.run.directory / "clients")

    def load_tensors(self, tensors: Tensors) -> None:
        """Load the tensors of a version into the model."""
        lora.write_adapter(self.model, tensors)
        self.model.eval()

    def report_limits(self) -> EvaluationLimits:
        """Return the limits of the final report, with one on tokens that follows from the model.

        It depends on the size of the model and the kind of device alone, so that a report made
        again has the same rows.
        """
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        tokens = int(_WORK.get(self.compute.device.type, _WORK["cuda"]) / parameters)
        return replace(FULL_LIMITS, tokens=max(_LEAST_TOKENS, tokens))

    def score(self, rows: EvaluationRows, on_rows: Callable[[int], None] = _ignore) -> Scores:
        """Return the score of each row; `on_rows` is called with the number of rows just done."""
        return row_scores.score_in_parts(
            rows.scorer, self.model, rows.examples, autocast=self.compute.autocast, on_rows=on_rows
        )

    def generate(
        self, rows: Sequence[Row], new_tokens: int, stopped: Callable[[], bool] = lambda: False
    ) -> list[str]:
        """Generate the last answer of each row; labelled texts are left out.

        Raises:
            ModelError: The chat template refuses the turns of a row.
        """
        asked = [row for row in rows if not isinstance(row, LabelledText)]
        if not asked:
            return []
        form = prompt_form(self._loaded.tokenizer, self.run.prompt)
        return generate(self.model, form, asked, new_tokens, stopped)

    def classify(self, rows: EvaluationRows) -> list[tuple[int, float]]:
        """Return the likeliest class of each row, with its probability."""
        return class_answers(self.model, rows.examples)

    def build_set(self, kind: RowKind, version: int, limits: EvaluationLimits) -> EvaluationRows:
        """Return the held-out rows of a kind with each client's validation rows."""
        sets: dict[str, Sequence[Row]] = {HELDOUT: self.heldout_rows(kind, limits.heldout[kind])}
        for shard in self.prepared.shards:
            if shard.kind == kind:
                validation = splits.split_rows(rows_of.read(kind, shard.path).rows).validation
                sets[shard.client_id] = pick_evenly(validation, limits.client[kind])
        rows = [(name, row) for name, own in sets.items() for row in own]
        found = self.encode(kind, version, rows, tuple(name for name in sets if name != HELDOUT))
        if limits.tokens is None:
            return found
        return found.thinned(limits.tokens // len(self.run.config.kinds))

    def heldout_rows(self, kind: RowKind, count: int) -> list[Row]:
        """Return at most `count` held-out rows of a kind, spread evenly."""
        return pick_evenly(rows_of.read(kind, self.prepared.heldout[kind]).rows, count)

    def encode(
        self,
        kind: RowKind,
        version: int,
        rows: Sequence[tuple[str, Row]],
        clients: tuple[str, ...] = (),
    ) -> EvaluationRows:
        """Tokenise pairs of owner and row."""
        config = self.run.config
        reference, phase = find_reward_reference(config.phase, version, kind)
        settings = (phase.dpo or phase.kto) if phase else None
        scorer = row_scores.make_scorer(kind, settings, self.run.labels, self.run.prompt)
        encoded = scorer.objective.encode(
            self._loaded.tokenizer, [row for _, row in rows], config.model.max_length
        )
        return EvaluationRows(
            scorer=scorer,
            rows=[rows[i][1] for i in encoded.kept],
            examples=encoded.examples,
            owners=[rows[i][0] for i in encoded.kept],
            available=len(encoded.kept),
            clients=clients,
            reference=reference,
            beta=phase.beta if phase else None,
        )


def find_reward_reference(
    phases: Sequence[PhaseConfig], version: int, kind: RowKind
) -> tuple[int, PhaseConfig | None]:
    """Return the version with which a version's rewards are compared, and the phase with its β.

    That is the version with which the newest phase of this kind of rows began. Before any has
    begun, it is version 0, with the settings of the first one. Kinds without rewards have neither.
    """
    if kind not in REWARD_KINDS:
        return 0, None
    reference, found = 0, next((phase for phase in phases if phase.kind == kind), None)
    start = 0
    for phase in phases:
        if phase.kind == kind and start <= version:
            reference, found = start, phase
        start += phase.versions
    return reference, found


def pick_evenly(rows: Sequence[T], count: int) -> list[T]:
    """Return at most `count` rows, spread evenly: the same rows in every call."""
    kept = min(count, len(rows))
    return [rows[i * len(rows) // kept] for i in range(kept)]

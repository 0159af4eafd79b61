"""Records of federated evaluation: what a client is to evaluate, and the sums that it answers.

They use the same queues, leases, receipts and admission as training. Sums, not means, travel, so
that the figures of several clients can be pooled exactly.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from common.evaluation.sums import MAX_SENT_CLASSES, EvaluationSums
from common.protocol.fields import (
    AttemptNumber,
    ClassNames,
    Count,
    Identifier,
    MaxLength,
    ObjectiveName,
    PhaseIndex,
    Record,
    RunId,
    Seconds,
    Sha256,
    list_to_tuple,
)
from common.protocol.tasks import (
    BaseRef,
    BlobRef,
    DpoSettings,
    KtoSettings,
    LoraSpec,
    ModelPrecision,
    PromptSpec,
)
from common.text import one_line

MAX_FIGURES = 200
"""Largest number of figures of one evaluator for one version."""
FigureName = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(one_line)]
Figure = Annotated[float, Field(allow_inf_nan=False)]


class EvalTask(Record):
    """Coordinator → site: evaluate `version` on the validation rows of client `client_id`.

    Attributes:
        adapter: θ of the version.
        candidate: Adapter to evaluate on the same rows after the version: θ with the update of
            another client applied, which is scored by the difference; None for an evaluation of
            the version alone.
        reference: π_ref of the rewards, for `dpo` and `kto`.
        frozen: Tensors that all adapters of the run share, as in `TrainTask`.
        max_rows: Limit of the rows, which are chosen by hash.
    """

    later: ClassVar[frozenset[str]] = frozenset({"frozen"})

    task_id: Identifier
    attempt: AttemptNumber
    run: RunId
    client_id: Identifier
    version: Count
    phase: PhaseIndex
    objective: ObjectiveName
    base: BaseRef
    adapter: BlobRef
    candidate: BlobRef | None = None
    reference: BlobRef | None = None
    lora: LoraSpec | None
    max_length: MaxLength
    dpo: DpoSettings | None = None
    kto: KtoSettings | None = None
    labels: Annotated[ClassNames, BeforeValidator(list_to_tuple)] = ()
    prompt: PromptSpec | None = None
    layout: Sha256
    precision: ModelPrecision | None = None
    frozen: BlobRef | None = None
    max_rows: Annotated[int, Field(ge=1, le=100_000)]
    issued_at: Seconds
    deadline_s: Seconds


class EvalResult(Record):
    """Worker → coordinator: sums over a client's validation rows.

    Attributes:
        version: Version that was evaluated.
        sums: With the version.
        candidate_sums: With the candidate, on the same rows, where the task names one.
        seconds: Wall-clock time, without fetching and loading.
        nbytes: Bytes that the site fetched for it: adapters that it did not have.
    """

    task_id: Identifier
    attempt: AttemptNumber
    client_id: Identifier
    worker_id: Identifier
    version: Count
    sums: EvaluationSums
    candidate_sums: EvaluationSums | None = None
    seconds: Seconds
    nbytes: Count = 0

    @model_validator(mode="after")
    def _matrices_fit(self) -> EvalResult:
        if not all(sums.sendable for sums in (self.sums, self.candidate_sums) if sums):
            raise ValueError(f"a confusion matrix has more than {MAX_SENT_CLASSES} classes")
        return self


class EvaluatorFigures(Record):
    """Figures of a version by a plug-in evaluator: a line of `evaluator_figures.jsonl`.

    Attributes:
        evaluator: Name of the plug-in in `[evaluators.NAME]`.
        seconds: Wall-clock time that it took.
    """

    version: Count
    at: Seconds
    evaluator: Identifier
    figures: Annotated[dict[FigureName, Figure], Field(max_length=MAX_FIGURES)]
    seconds: Seconds

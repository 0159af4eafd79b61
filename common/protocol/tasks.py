"""Records of tasks: what a client is to train, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from common.protocol.fields import (
    AttemptNumber,
    BatchSize,
    ClassNames,
    CodecName,
    Count,
    DtypeName,
    Fraction,
    Identifier,
    LearningRate,
    LocalEpochs,
    LocalSteps,
    MaxLength,
    ObjectiveName,
    PhaseIndex,
    QuantizationName,
    Record,
    RunId,
    Seconds,
    Sha256,
    ShortText,
    TaskState,
    list_to_tuple,
)

MAX_BLOB = 8 << 30
"""Largest blob in the store, in bytes: an adapter is no larger than an update of it."""
MAX_TEMPLATE = 32 * 1024
"""Longest chat template, in bytes: half a header. Templates of vendors have up to about 15,000."""

LearnedTurns = Literal["all", "last"]
"""Which of the assistant's turns of a conversation are learned."""
RefactoredRanks = Literal["equal", "mixed"]
"""Ranks of the clients in a run whose versions are factorised anew (aggregation rule `product`).

With `mixed`, tasks of some clients have a lower rank than the versions.
"""


class BlobRef(Record):
    """A content-addressed blob in the store."""

    sha256: Sha256
    nbytes: Annotated[int, Field(ge=0, le=MAX_BLOB)]


class BaseRef(Record):
    """Reference to the frozen base model: its digest, and where it can be found."""

    name: Annotated[str, Field(min_length=1, max_length=400)]
    revision: Annotated[str, Field(max_length=100)] | None = None
    kind: Literal["offline", "hub", "local"]
    digest: Sha256


class LoraSpec(Record):
    """LoRA factors: B (out × r) and A (r × in), applied as (alpha / r) · B A."""

    r: Annotated[int, Field(ge=1, le=1024)] = 16
    alpha: Annotated[int, Field(ge=1, le=4096)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], BeforeValidator(list_to_tuple)] = (
        "all-linear"
    )


class DpoSettings(Record):
    """Settings of preference optimisation; `learning/objectives/dpo.py` has the formulas.

    Attributes:
        beta: How strongly the policy is kept close to its reference (τ of IPO).
        label_smoothing: Assumed share of pairs whose preference is the wrong way round (cDPO).
        sft_weight: λ of an added λ · (mean −log p per token of the chosen answers).
    """

    beta: Annotated[float, Field(gt=0, le=100)] = 0.1
    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    sft_weight: Annotated[float, Field(ge=0, le=100)] = 0.0


class KtoSettings(Record):
    """Settings of learning from single ratings; `learning/objectives/kto.py` has the formulas.

    Attributes:
        beta: How strongly the policy is kept close to its reference.
        good_weight: λ_D, weight of the answers that users liked.
        bad_weight: λ_U, weight of the others.
    """

    beta: Annotated[float, Field(gt=0, le=100)] = 0.1
    good_weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    bad_weight: Annotated[float, Field(gt=0, le=1000)] = 1.0


class ModelPrecision(Record):
    """How the frozen weights of the base model are held, the same on every worker of a run.

    Attributes:
        dtype: `auto` is bfloat16 where training computes in it, and float32 elsewhere.
        quantization: Of the linear layers, by bitsandbytes.
    """

    dtype: DtypeName = "auto"
    quantization: QuantizationName = "none"


class PromptSpec(Record):
    """How rows become text, the same on every machine of a run.

    Attributes:
        template: Chat template in Jinja, with its date fixed; `learning.prompts` chooses it when
            the run is prepared.
    """

    template: Annotated[str, Field(min_length=1, max_length=MAX_TEMPLATE)]
    turns: LearnedTurns = "all"


def parse_prompt(meta: Mapping[str, str]) -> PromptSpec | None:
    """Return the prompt form that a journal records; None for a run that records none."""
    text = meta.get("prompt")
    return None if text is None else PromptSpec.model_validate_json(text)


def parse_frozen(meta: Mapping[str, str]) -> BlobRef | None:
    """Return the frame of the frozen tensors that a journal records; None if it records none."""
    text = meta.get("frozen")
    return None if text is None else BlobRef.model_validate_json(text)


PluginOption = (
    bool
    | Annotated[int, Field(ge=-(2**53), le=2**53)]
    | Annotated[float, Field(allow_inf_nan=False)]
    | Annotated[str, Field(max_length=200)]
)
PluginOptions = Annotated[dict[Identifier, PluginOption], Field(max_length=20)]


class ObjectivePlugin(Record):
    """Plug-in that changes how an objective is trained, as the entry point of another package.

    `learning/objectives/plugins.py` finds it; a worker that does not have it refuses the task.
    """

    name: Identifier
    options: PluginOptions = Field(default_factory=dict)

    def __str__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.name}({values})"


class LocalTraining(Record):
    """How a client trains on one task; exactly one of `steps` and `epochs` is above 0.

    Attributes:
        steps: Optimizer steps.
        epochs: Passes over the client's examples.
        lr: Learning rate of AdamW, without weight decay.
        max_grad_norm: The gradient is scaled down to this Euclidean norm.
        prox_mu: μ of FedProx (Li et al. 2020), which adds μ/2·‖θ − θ_start‖² to the loss; 0 is off.
        max_length: Limit of an example's tokens.
        logit_adjustment: τ of `learning.objectives.classification.with_logit_adjustment`.
    """

    steps: LocalSteps = 0
    epochs: LocalEpochs = 0
    batch_size: BatchSize
    lr: LearningRate
    max_grad_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    prox_mu: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    max_length: MaxLength
    logit_adjustment: Annotated[float, Field(ge=0, le=10)] = 0.0

    @model_validator(mode="after")
    def _steps_or_epochs(self) -> LocalTraining:
        if (self.steps > 0) == (self.epochs > 0):
            raise ValueError("exactly one of steps and epochs must be positive")
        return self


class TrainTask(Record):
    """Coordinator → site: train client `client_id` in `phase`, from version `base_version`.

    Attributes:
        lora: Shape of the adapter; None trains all parameters.
        reference: The version with which a `dpo` or `kto` phase began, its π_ref; the same for all
            clients.
        labels: Class names of `classification`, in the order of the head's outputs.
        prompt: How rows become text; None, as in tasks of schema 1, is the Alpaca form.
        layout: Digest of the tensor layout that the adapter has and the update must have; None, as
            in tasks of schema 1, requests an update of schema 1.
        precision: How the base model is held; None stands for the defaults.
        holdout_budget: Limit of the time for measuring the holdout before and after training, as a
            share of the training time; None measures in any case.
        clip_norm: The whole update is scaled down to this Euclidean norm, for differential privacy;
            the coordinator does so, too.
        plugin: Changes how the objective is trained.
        frozen: Tensors of the adapter that are not trained and stay the same for the whole run, so
            that neither `adapter` nor the update has them (aggregation rule `ffa`).
        refactored: Each version has factors of its own, so that a change of the factors of one
            means nothing on another (aggregation rule `product`).
    """

    added: ClassVar[frozenset[str]] = frozenset(
        {"prompt", "layout", "precision", "holdout_budget", "kto", "plugin"}
    )
    later: ClassVar[frozenset[str]] = frozenset({"frozen", "refactored", "plugin", "clip_norm"})

    task_id: Identifier
    attempt: AttemptNumber
    run: RunId
    client_id: Identifier
    phase: PhaseIndex
    objective: ObjectiveName
    training: LocalTraining
    base: BaseRef
    base_version: Count
    adapter: BlobRef
    lora: LoraSpec | None
    dpo: DpoSettings | None = None
    kto: KtoSettings | None = None
    reference: BlobRef | None = None
    labels: Annotated[ClassNames, BeforeValidator(list_to_tuple)] = ()
    prompt: PromptSpec | None = None
    layout: Sha256 | None = None
    precision: ModelPrecision | None = None
    holdout_budget: Fraction | None = None
    clip_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    plugin: ObjectivePlugin | None = None
    frozen: BlobRef | None = None
    refactored: RefactoredRanks | None = None
    update_codec: CodecName
    seed: Count
    issued_at: Seconds
    deadline_s: Seconds


class TaskRefusal(Record):
    """Worker → coordinator: the task cannot be trained, or the version evaluated, at this site.

    `declines` says that the site evaluates no version, by its own settings.
    """

    added: ClassVar[frozenset[str]] = frozenset({"declines"})

    task_id: Identifier
    attempt: AttemptNumber
    client_id: Identifier
    worker_id: Identifier
    reason: ShortText
    declines: bool | None = None


class Receipt(Record):
    """Coordinator → worker: what became of a task; published after it was journaled.

    `attempt` is the one whose update decided it; 0 if the task was closed without an update.
    """

    task_id: Identifier
    attempt: Annotated[int, Field(ge=0, le=10_000)]
    state: TaskState
    reason: ShortText = ""

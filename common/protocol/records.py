"""The records that cross a border, and the limits of their fields.

Frozen and strict: a record that exists is valid. `common.protocol.wire` turns them into bytes and back;
`docs/protocol.md` says who writes each one and where it travels. Times are seconds since the Unix
epoch on the writer's clock; they inform, and decide nothing on another machine.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def one_line(text: str) -> str:
    """The text without what a terminal would obey."""
    return "".join(char if char.isprintable() else " " for char in text)


Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""A name that is safe in a queue name, a Redis key and a line of log. Never used as a path."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Mean loss in nats: per response token (sft), per pair (dpo) or per text (classification)."""
Fraction = Annotated[float, Field(ge=0, le=1)]
MAX_LOSS = 1e4
Loss = Annotated[float, Field(gt=0, le=MAX_LOSS, allow_inf_nan=False)]
LocalSteps = Annotated[int, Field(ge=0, le=100_000)]
LocalEpochs = Annotated[int, Field(ge=0, le=1000)]
BatchSize = Annotated[int, Field(ge=1, le=4096)]
LearningRate = Annotated[float, Field(gt=0, le=10)]
MaxLength = Annotated[int, Field(ge=16, le=131072)]
ShortText = Annotated[str, Field(max_length=500), AfterValidator(one_line)]
"""For people. Terminal escapes and line breaks become spaces: it ends in logs and on screens."""
SampleText = Annotated[str, Field(max_length=1000), AfterValidator(one_line)]
"""A row, or what a model makes of it, likewise: its output is as hostile as anybody's."""
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]
RunId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""A run's name, and its id. No dot: queue names join with dots."""
CodecName = Literal["fp32", "bf16", "int8", "int4", "topk"]
ObjectiveName = Literal["sft", "dpo", "classification"]
RowKind = Literal["sft", "va", "cls"]
"""What a client's file of rows holds, and how it ends: `client_0_va.jsonl`."""
ROW_KINDS: dict[ObjectiveName, RowKind] = {"sft": "sft", "dpo": "va", "classification": "cls"}
"""The rows that an objective learns from."""
ClassName = Annotated[str, Field(min_length=1, max_length=200)]
ClassNames = Annotated[tuple[ClassName, ...], Field(max_length=1000)]
TaskState = Literal["accepted", "rejected"]


def list_to_tuple(value: object) -> object:
    """Msgpack has no tuple: an array becomes one at the border."""
    return tuple(value) if isinstance(value, list) else value


Shape = Annotated[
    tuple[Annotated[int, Field(ge=1, le=2**31)], ...],
    Field(max_length=8),
    BeforeValidator(list_to_tuple),
]


class Record(BaseModel):
    """A frozen, strictly typed record without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def fields(self) -> dict[str, Any]:
        """The record as plain maps, arrays and scalars, ready for msgpack or JSON."""
        return self.model_dump(mode="json")


class TensorEntry(Record):
    """Where one tensor lies in the data that follows the header."""

    name: Annotated[str, Field(min_length=1, max_length=300)]
    shape: Shape
    offset: Count
    nbytes: Count


Entries = Annotated[tuple[TensorEntry, ...], Field(max_length=4096), BeforeValidator(list_to_tuple)]


class BlobRef(Record):
    """A content-addressed blob in the store."""

    sha256: Sha256
    nbytes: Count


class BaseRef(Record):
    """The frozen base model; `digest` is what counts, the rest says where to look for it."""

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
    """Preference optimisation; `learning/objectives/dpo.py` has the formulas.

    Attributes:
        beta: How strongly the policy is held to its reference (τ of IPO).
        loss: `sigmoid` (DPO) or `ipo`.
        label_smoothing: Assumed share of pairs whose preference is the wrong way round (cDPO).
        sft_weight: λ of an added λ · (mean −log p per token of the chosen answers).
    """

    beta: Annotated[float, Field(gt=0, le=100)] = 0.1
    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    sft_weight: Annotated[float, Field(ge=0, le=100)] = 0.0


class LocalTraining(Record):
    """How a client trains on one task. Exactly one of `steps` and `epochs` is positive.

    `logit_adjustment` is τ of `learning.objectives.classification.adjusted`; other objectives ignore it.
    """

    steps: LocalSteps
    epochs: LocalEpochs
    batch_size: BatchSize
    lr: LearningRate
    max_grad_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    prox_mu: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    max_length: MaxLength
    logit_adjustment: Annotated[float, Field(ge=0, le=10)] = 0.0


class TrainTask(Record):
    """Coordinator → site: train `client_id` on `phase` from version `base_version`.

    Attributes:
        lora: The adapter's shape; None trains all parameters.
        dpo: For the objective `dpo`.
        reference: The version that a `dpo` phase began with: its π_ref, the same for every client.
        labels: The class names of `classification`, in the order of the head's outputs.
    """

    task_id: Identifier
    attempt: Annotated[int, Field(ge=1, le=10_000)]
    run: RunId
    client_id: Identifier
    phase: Annotated[int, Field(ge=0, le=1000)]
    objective: ObjectiveName
    training: LocalTraining
    base: BaseRef
    base_version: Count
    adapter: BlobRef
    lora: LoraSpec | None
    dpo: DpoSettings | None = None
    reference: BlobRef | None = None
    labels: Annotated[ClassNames, BeforeValidator(list_to_tuple)] = ()
    update_codec: CodecName
    seed: Count
    issued_at: Seconds
    deadline_s: Seconds


class ContributionStats(Record):
    """What a client says about its training; claims, checked by admission.

    `avg_loss` is the mean over the local steps; `loss_before` and `loss_after` are measured on the
    client's own holdout, and so is the accuracy: the share of pairs in which the chosen answer is
    the likelier one (dpo, against the reference), or of texts that are classified rightly.
    """

    num_samples: Count
    num_tokens: Count
    steps: Count
    avg_loss: Loss
    loss_before: Loss
    loss_after: Loss
    train_seconds: Seconds
    delta_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    incremental_samples: Count = 0
    accuracy_before: Fraction | None = None
    accuracy_after: Fraction | None = None


class Update(Record):
    """Worker → coordinator: the header of Δ = θ_local − θ_base; the tensors follow as raw bytes."""

    task_id: Identifier
    attempt: Annotated[int, Field(ge=1, le=10_000)]
    client_id: Identifier
    worker_id: Identifier
    phase: Annotated[int, Field(ge=0, le=1000)]
    base_version: Count
    stats: ContributionStats
    codec: CodecName
    tensors: Entries
    sha256: Sha256


class TaskRefusal(Record):
    """Worker → coordinator: this task cannot be trained here, and why."""

    task_id: Identifier
    attempt: Annotated[int, Field(ge=1, le=10_000)]
    client_id: Identifier
    worker_id: Identifier
    reason: ShortText


class Enrolment(Record):
    """Worker → coordinator: a client of an invited site brings its own rows, so many of each kind.

    Sent until there is a `Membership`, and again whenever the rows have changed.
    """

    client_id: Identifier
    worker_id: Identifier
    rows: dict[RowKind, Count]
    nonce: Count
    software: ShortText = ""


class Membership(Record):
    """Coordinator → worker: whether a client takes part, and why not.

    `nonce` is that of the `Enrolment` it answers; 0 where it was told again without one.
    """

    client_id: Identifier
    state: Literal["member", "refused", "left"]
    nonce: Count = 0
    reason: ShortText = ""


class Adapter(Record):
    """Header of one broadcast version; the tensors follow as raw bytes."""

    version: Count
    codec: CodecName
    tensors: Entries


class Receipt(Record):
    """Coordinator → worker: what became of a task, and which attempt settled it.

    Journaled first, then published. `attempt` 0: the task was closed without an update.
    """

    task_id: Identifier
    attempt: Annotated[int, Field(ge=0, le=10_000)]
    state: TaskState
    reason: ShortText = ""


class CurrentModel(Record):
    """Coordinator → anyone: the newest version, for who has no task: inboxes and `fccl try`.

    Attributes:
        labels: The class names of `classification`, in the order of the head's outputs.
    """

    run: RunId
    version: Count
    phase: Annotated[int, Field(ge=0, le=1000)]
    objective: ObjectiveName
    base: BaseRef
    adapter: BlobRef
    lora: LoraSpec | None
    max_length: MaxLength
    dpo: DpoSettings | None = None
    labels: Annotated[ClassNames, BeforeValidator(list_to_tuple)] = ()


class InboxFigures(Record):
    """What a client's inbox holds and what became of it, in figures. Never user text.

    Losses are in nats, before and after the newest batch: on the new items that were held out, and
    on the anchors. `forgetting` and `backward_transfer` are of accuracy where there is one, else of
    loss; `worker/incremental/report/stream.py` has the formulas.
    """

    client_id: Identifier
    waiting: Count
    learned: Count
    settled: Count
    rejected: Count
    verdict: Literal["", "accepted", "rejected"] = ""
    reason: ShortText = ""
    at: Seconds = 0.0
    new_before: Loss | None = None
    new_after: Loss | None = None
    anchor_before: Loss | None = None
    anchor_after: Loss | None = None
    forgetting: Annotated[float, Field(allow_inf_nan=False)] | None = None
    backward_transfer: Annotated[float, Field(allow_inf_nan=False)] | None = None


class LocalEvent(Record):
    """Something that happened at a worker, told through its heartbeat. Never user text."""

    at: Seconds
    kind: Identifier
    text: ShortText


class Heartbeat(Record):
    """Worker → store, every few seconds under a TTL: a claim about what it does.

    Attributes:
        inbox: Of clients with live input, the busiest first.
        wishes: Clients that have learned something and would like to send it soon.
    """

    worker_id: Identifier
    site: Identifier
    state: Literal["starting", "waiting", "fetching", "training", "publishing", "stopping"]
    clients: Annotated[
        tuple[Identifier, ...], Field(max_length=4096), BeforeValidator(list_to_tuple)
    ] = ()
    task_id: Identifier | None = None
    client_id: Identifier | None = None
    wants: Sha256 | None = None
    progress: Annotated[float, Field(ge=0, le=1)] = 0.0
    tokens_per_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    last_loss: Loss | None = None
    base_version: Count | None = None
    device: ShortText = ""
    host: ShortText = ""
    software: ShortText = ""
    sent_at: Seconds = 0.0
    inbox: Annotated[
        tuple[InboxFigures, ...], Field(max_length=64), BeforeValidator(list_to_tuple)
    ] = ()
    wishes: Annotated[
        tuple[Identifier, ...], Field(max_length=64), BeforeValidator(list_to_tuple)
    ] = ()
    events: Annotated[
        tuple[LocalEvent, ...], Field(max_length=20), BeforeValidator(list_to_tuple)
    ] = ()


class Event(Record):
    """One entry of the append-only feed. `refs` names what it is about: version, client, task."""

    at: Seconds
    level: Literal["info", "warning", "error"]
    kind: Identifier
    text: ShortText
    refs: dict[str, str | int | float] = Field(default_factory=dict)


class UpdateSummary(Record):
    """What one update was worth in its commit; see docs/algorithms.md for each factor."""

    task_id: Identifier
    client_id: Identifier
    worker_id: Identifier
    base_version: Count
    staleness: Count
    score: float
    weight: float
    staleness_factor: float
    participation_factor: float
    clip: float
    coefficient: float
    num_samples: Count
    num_tokens: Count
    steps: Count
    avg_loss: Loss
    loss_before: Loss
    loss_after: Loss
    delta_norm: float
    train_seconds: Seconds
    nbytes: Count
    accuracy_before: Fraction | None = None
    accuracy_after: Fraction | None = None
    incremental_samples: Count = 0


class VersionSummary(Record):
    """One committed version, permanently kept: a line of `progress.jsonl`."""

    version: Count
    phase: Annotated[int, Field(ge=0, le=1000)]
    at: Seconds
    sha256: Sha256
    nbytes: Count
    train_loss: float | None = None
    holdout_before: float | None = None
    holdout_after: float | None = None
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    updates: Annotated[tuple[UpdateSummary, ...], BeforeValidator(list_to_tuple)] = ()


class SampleAnswer(Record):
    """A held-out row, and what one version says of it: a line of `samples.jsonl`.

    Attributes:
        asked: The prompt, or the text to classify.
        expected: The row's own answer: its output, the chosen one of two, or the class.
        answer: The version's: generated text, or the likeliest class.
        probability: Of that class.
    """

    version: Count
    at: Seconds
    kind: RowKind
    asked: SampleText
    expected: SampleText
    answer: SampleText
    probability: Fraction | None = None

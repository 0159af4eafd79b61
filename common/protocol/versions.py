"""Records of versions: the published adapter, its summary, and sample answers."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from common.protocol.fields import (
    BatchSize,
    ClassNames,
    CodecName,
    Count,
    Fraction,
    Identifier,
    MaxLength,
    ObjectiveName,
    PhaseIndex,
    Record,
    RowKind,
    RunId,
    SampleText,
    Seconds,
    Sha256,
    list_to_tuple,
)
from common.protocol.layout import MAX_LAYOUT_BYTES
from common.protocol.tasks import (
    BaseRef,
    BlobRef,
    DpoSettings,
    KtoSettings,
    LoraSpec,
    ModelPrecision,
    PromptSpec,
    RefactoredRanks,
)
from common.protocol.updates import ContributionStats, TensorTable


class Adapter(Record):
    """Header of the adapter of one version; layout and tensors follow as raw bytes.

    `common/protocol/adapter_frame.py` writes and reads the whole frame.

    Attributes:
        tensors: Tensor table; only in schema 1.
        layout: Digest of the tensor layout.
        layout_bytes: Size of the layout's canonical form, which precedes the tensors.
    """

    added: ClassVar[frozenset[str]] = frozenset({"layout", "layout_bytes"})
    removed: ClassVar[frozenset[str]] = frozenset({"tensors"})

    version: Count
    codec: CodecName
    tensors: TensorTable | None = None
    layout: Sha256 | None = None
    layout_bytes: Annotated[int, Field(ge=0, le=MAX_LAYOUT_BYTES)] | None = None

    @model_validator(mode="after")
    def _layout_or_table(self) -> Adapter:
        missing = (self.tensors is None, self.layout is None, self.layout_bytes is None)
        if missing not in ((True, False, False), (False, True, True)):
            raise ValueError("an adapter has either a layout or a table of tensors")
        return self


class CurrentModel(Record):
    """Coordinator → site: the newest version, for inboxes and `fccl try`, which have no task.

    Attributes:
        min_batch_size: Smallest batch of this phase and those that follow.
        frozen, refactored: As in `TrainTask`.
    """

    added: ClassVar[frozenset[str]] = frozenset({"prompt", "precision", "kto", "min_batch_size"})
    later: ClassVar[frozenset[str]] = frozenset({"frozen", "refactored"})

    run: RunId
    version: Count
    phase: PhaseIndex
    objective: ObjectiveName
    base: BaseRef
    adapter: BlobRef
    lora: LoraSpec | None
    max_length: MaxLength
    dpo: DpoSettings | None = None
    kto: KtoSettings | None = None
    labels: Annotated[ClassNames, BeforeValidator(list_to_tuple)] = ()
    prompt: PromptSpec | None = None
    precision: ModelPrecision | None = None
    min_batch_size: BatchSize | None = None
    frozen: BlobRef | None = None
    refactored: RefactoredRanks | None = None


class UpdateSummary(Record):
    """One update's share of a commit, and the statistics that its client reported.

    `left_out` says that the aggregation rule has dropped it as an outlier.

    The serialised form is flat: the fields of `stats` stand beside the others, as columns of
    `client_metrics.jsonl` and in the summaries of run directories of every release so far.
    `docs/algorithms.md` explains each factor.
    """

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
    stats: ContributionStats
    nbytes: Count
    left_out: bool = False

    @model_validator(mode="before")
    @classmethod
    def _nest_stats(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "stats" in value:
            return value
        stats = {key: value[key] for key in ContributionStats.model_fields if key in value}
        return {key: value[key] for key in value if key not in stats} | {"stats": stats}

    @model_serializer(mode="wrap")
    def _flatten_stats(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = serialize(self)
        stats: dict[str, Any] = fields.pop("stats")
        return fields | stats


class RankedAdapter(Record):
    """Frame of the leading components of a version, for clients with a lower rank."""

    rank: Annotated[int, Field(ge=1, le=1024)]
    sha256: Sha256
    nbytes: Count


class VersionSummary(Record):
    """Summary of one committed version, kept for good: a line of `progress.jsonl`.

    Attributes:
        sha256, nbytes: Of its frame, as clients get it that have no rank of their own.
        state_sha256: Digest of the file of the server's state, if the aggregation rule has any.
        ranked: The frames for clients with a lower rank than the version.
    """

    version: Count
    phase: PhaseIndex
    at: Seconds
    sha256: Sha256
    nbytes: Count
    state_sha256: Sha256 | None = None
    train_loss: float | None = None
    holdout_before: float | None = None
    holdout_after: float | None = None
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    updates: Annotated[tuple[UpdateSummary, ...], BeforeValidator(list_to_tuple)] = ()
    ranked: Annotated[tuple[RankedAdapter, ...], BeforeValidator(list_to_tuple)] = ()

    @property
    def blobs(self) -> tuple[BlobRef, ...]:
        """The frames of all ranks."""
        return tuple(self.blob(rank) for rank in (None, *(each.rank for each in self.ranked)))

    def blob(self, rank: int | None = None) -> BlobRef:
        """Return the frame of a rank; None is that of the version itself."""
        found = next((each for each in self.ranked if each.rank == rank), self)
        return BlobRef(sha256=found.sha256, nbytes=found.nbytes)

    @model_serializer(mode="wrap")
    def _without_ranks(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave `ranked` out where it is empty: readers of earlier releases do not know it."""
        fields: dict[str, Any] = serialize(self)
        if not self.ranked:
            del fields["ranked"]
        return fields


class SampleAnswer(Record):
    """The answer of one version to a held-out row: a line of `samples.jsonl`.

    Attributes:
        asked: The prompt, or the text to classify.
        expected: The row's own output, the chosen one of two, or the class.
        answer: Text that the version generated, or the likeliest class, with its probability.
    """

    version: Count
    at: Seconds
    kind: RowKind
    asked: SampleText
    expected: SampleText
    answer: SampleText
    probability: Fraction | None = None

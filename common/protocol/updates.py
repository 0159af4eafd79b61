"""Records of updates: the header of a delta, and the client's statistics."""

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
    AttemptNumber,
    CodecName,
    Count,
    Fraction,
    Identifier,
    Loss,
    PhaseIndex,
    Record,
    Seconds,
    Sha256,
    Shape,
    list_to_tuple,
)


class TensorEntry(Record):
    """Name, shape and place of one tensor in the data that follows the header."""

    name: Annotated[str, Field(min_length=1, max_length=300)]
    shape: Shape
    offset: Count
    nbytes: Count


TensorTable = Annotated[
    tuple[TensorEntry, ...], Field(max_length=4096), BeforeValidator(list_to_tuple)
]
"""Tensors in schema 1; `common/protocol/tensor_table.py` makes and checks it."""


class TaskSeconds(Record):
    """Wall-clock seconds of the parts of a task besides the steps themselves.

    Attributes:
        fetch: Base model and adapter.
        load: Model and rows; near 0 once a worker has them in memory.
        reference: log π_ref of the answers, for dpo and kto.
        measure: Loss on the holdout, before and after training.
        encode: Reading the delta out of the model, and encoding it.
    """

    fetch: Seconds = 0.0
    load: Seconds = 0.0
    reference: Seconds = 0.0
    measure: Seconds = 0.0
    encode: Seconds = 0.0


class ContributionStats(Record):
    """Statistics that a client claims about its training; `coordinator.core.admission` checks them.

    Attributes:
        avg_loss: Mean over the local steps.
        loss_before, loss_after: Loss on the client's own holdout, before and after training; None
            where the task's budget was too small to measure it.
        train_seconds: Wall-clock time of the steps.
        seconds: Time of everything else.
        accuracy_before, accuracy_after: Share of the holdout's pairs in which the chosen answer is
            the likelier one (dpo, relative to the reference), of its answers whose reward has the
            right sign (kto), or of its texts that are classified correctly.
        incremental_samples: Number of items of live input that the update contains.
    """

    num_samples: Count
    num_tokens: Count
    steps: Count
    avg_loss: Loss
    loss_before: Loss | None = None
    loss_after: Loss | None = None
    train_seconds: Seconds
    delta_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    incremental_samples: Count = 0
    accuracy_before: Fraction | None = None
    accuracy_after: Fraction | None = None
    seconds: TaskSeconds | None = None

    def parts(self) -> dict[str, float]:
        """Return the seconds of each part of the task; empty for updates of earlier releases."""
        if self.seconds is None:
            return {}
        return {"training": self.train_seconds, **dict(self.seconds)}

    @model_serializer(mode="wrap")
    def _without_unknown(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave `seconds` out where they are None: schema 1 has no such field."""
        fields: dict[str, Any] = serialise(self)
        if fields["seconds"] is None:
            del fields["seconds"]
        return fields


class Update(Record):
    """Worker → coordinator: header of Δ = θ_local − θ_base; the tensors follow as raw bytes.

    Attributes:
        tensors: Tensor table; only in the answer to a task of schema 1.
        layout: Digest of the tensor layout; the tensors follow in its order.
    """

    added: ClassVar[frozenset[str]] = frozenset({"layout"})
    removed: ClassVar[frozenset[str]] = frozenset({"tensors"})

    task_id: Identifier
    attempt: AttemptNumber
    client_id: Identifier
    worker_id: Identifier
    phase: PhaseIndex
    base_version: Count
    stats: ContributionStats
    codec: CodecName
    tensors: TensorTable | None = None
    layout: Sha256 | None = None
    sha256: Sha256

    @model_validator(mode="after")
    def _layout_or_table(self) -> Update:
        if (self.layout is None) == (self.tensors is None):
            raise ValueError("an update has either a layout or a table of tensors")
        return self

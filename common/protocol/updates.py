"""Records of updates: the header of a delta, its tensors, and the client's statistics."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from common.protocol.fields import (
    CodecName,
    Count,
    Fraction,
    Identifier,
    Loss,
    Record,
    Seconds,
    Sha256,
    Shape,
    list_to_tuple,
)


class TensorEntry(Record):
    """Where one tensor lies in the data that follows the header."""

    name: Annotated[str, Field(min_length=1, max_length=300)]
    shape: Shape
    offset: Count
    nbytes: Count


Entries = Annotated[tuple[TensorEntry, ...], Field(max_length=4096), BeforeValidator(list_to_tuple)]


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

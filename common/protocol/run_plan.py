"""Record of a run's plan, which the coordinator publishes for the people at the sites.

Before a site trains its first task, its worker shows the plan, and can require that somebody
approves it (`worker/review/`). An approval holds for the plan's digest, so that another run with
the same plan needs none. Each task is compared with the plan that was shown.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from common.protocol.fields import (
    ROW_KINDS,
    BatchSize,
    ClassNames,
    CodecName,
    Count,
    Identifier,
    LearningRate,
    LocalEpochs,
    LocalSteps,
    MaxLength,
    ObjectiveName,
    Record,
    RowKind,
    RunId,
    RunName,
    Sha256,
    ShortText,
    list_to_tuple,
)
from common.protocol.tasks import BaseRef, LoraSpec, ModelPrecision, ObjectivePlugin


class PlannedPhase(Record):
    """A span of versions with one objective; `lr` is the highest learning rate.

    Attributes:
        adaptive_steps: Limits of the steps, where they depend on the client's speed.
    """

    objective: ObjectiveName
    versions: Count
    local_steps: LocalSteps
    local_epochs: LocalEpochs
    batch_size: BatchSize
    lr: LearningRate
    plugin: ObjectivePlugin | None = None  # changes how the objective is trained
    adaptive_steps: (
        Annotated[tuple[LocalSteps, LocalSteps], BeforeValidator(list_to_tuple)] | None
    ) = None

    @property
    def kind(self) -> RowKind:
        return ROW_KINDS[self.objective]


class PlannedEvaluation(Record):
    """Evaluation of versions on the sites' validation rows.

    Version 0, the phase ends and the last version are evaluated, and every `every`-th one.
    """

    max_rows: Count  # of each client, per evaluation
    every: Count | None = None


class PlannedRank(Record):
    """Adapter of clients whose rank is below that of the versions."""

    lora: LoraSpec
    layout: Sha256


class PlannedPrivacy(Record):
    """Differential privacy of clients: `common/privacy.py` explains it.

    Attributes:
        clip_norm: C, the largest norm of an update.
        noise_multiplier: z, standard deviation of the noise of a sum of updates, divided by C.
        max_versions: The most versions that a client takes part in; None without a limit.
    """

    clip_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    noise_multiplier: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    max_versions: Count | None = None


class RunPlan(Record):
    """Coordinator → site: what a run asks of a site, and what leaves its machine.

    Attributes:
        contact: Who coordinates the run; for people, and claimed.
        lora: Shape of the adapter; None trains all parameters.
        parameters: Number of trained parameters.
        layout: Digest of the tensor layout; None in a run that began with schema 1.
        prompt: SHA-256 of the chat template; None for the Alpaca form, and where texts are
            classified.
        update_bytes: Size of an update's tensors.
        adapter_bytes: Size of the adapter's tensors, which a site fetches for every task.
        contribution_source: With `federated`, other sites evaluate this site's updates.
        evaluation: None if sites evaluate nothing.
        frozen_bytes: Size of the tensors that a site fetches once, because they are not trained.
        lower_ranks: Adapters of clients with a rank of their own; sizes are those of `lora`.
        privacy: None without differential privacy.
    """

    later: ClassVar[frozenset[str]] = frozenset({"frozen_bytes", "lower_ranks", "privacy"})

    run: RunId
    name: RunName
    contact: ShortText = ""
    base: BaseRef
    precision: ModelPrecision | None = None
    phases: Annotated[
        tuple[PlannedPhase, ...],
        Field(min_length=1, max_length=100),
        BeforeValidator(list_to_tuple),
    ]
    labels: Annotated[ClassNames, BeforeValidator(list_to_tuple)] = ()
    prompt: Sha256 | None = None
    max_length: MaxLength
    lora: LoraSpec | None
    layout: Sha256 | None = None
    parameters: Count
    tensors: Count
    update_codec: CodecName
    update_bytes: Count
    adapter_bytes: Count
    contribution_source: Identifier
    evaluation: PlannedEvaluation | None = None
    frozen_bytes: Count = 0
    lower_ranks: Annotated[
        tuple[PlannedRank, ...], Field(max_length=100), BeforeValidator(list_to_tuple)
    ] = ()
    privacy: PlannedPrivacy | None = None

    def fields(self) -> dict[str, Any]:
        """Return the fields without those that sites of earlier releases refuse, where not set."""
        fields = super().fields()
        for phase in fields["phases"]:
            for name in ("plugin", "adaptive_steps"):
                if phase[name] is None:
                    del phase[name]
        return fields

    @property
    def digest(self) -> str:
        """SHA-256 of all fields but the run's id, in hex.

        Later fields that have their default are left out, so that approvals stay valid.
        """
        fields = self.fields()
        del fields["run"]
        for name in self.later:
            if not fields[name]:
                del fields[name]
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def kinds(self) -> tuple[RowKind, ...]:
        """The kinds of rows that the run learns from, in the order of its phases."""
        return tuple(dict.fromkeys(phase.kind for phase in self.phases))

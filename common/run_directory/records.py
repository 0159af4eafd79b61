"""Records of a run's journal about clients, tasks and updates."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from common.evaluation.sums import EvaluationSums
from common.protocol.fields import (
    ClassNames,
    Count,
    Identifier,
    PhaseIndex,
    Record,
    RowKind,
    RunId,
    Seconds,
    Sha256,
    list_to_tuple,
)
from common.protocol.updates import ContributionStats


class AdapterOrigin(Record):
    """Origin of an exported adapter, in the metadata of its safetensors file.

    Attributes:
        bases: Digests of the base models that it fits: that of the run, and the exported copy.
        labels: Class names of a classifier, in the order of its head's outputs.
        prompt: Digest of the chat template with which it was trained; None for a classifier.
    """

    bases: Annotated[
        tuple[Sha256, ...], Field(min_length=1, max_length=10), BeforeValidator(list_to_tuple)
    ]
    run: RunId
    version: Count
    labels: Annotated[ClassNames, BeforeValidator(list_to_tuple)] = ()
    prompt: Sha256 | None = None


class WarmStart(Record):
    """The adapter with which a run began; `run` and `version` are None if it does not name them."""

    sha256: Sha256  # of its safetensors file
    run: RunId | None = None
    version: Count | None = None

    def describe(self) -> str:
        """Return where the adapter comes from, without a path."""
        if self.run is None:
            return f"an adapter with digest {self.sha256[:12]}"
        return f"version {self.version} of run {self.run}"


class ClientRecord(Record):
    """A client: its site, and its number of training rows by kind."""

    client_id: Identifier
    site: Identifier
    rows: dict[RowKind, Count]


class AttemptRecord(Record):
    """An attempt of a task."""

    at: Seconds  # when it was issued
    task_id: Identifier
    attempt: Count
    client_id: Identifier
    base_version: Count


class ReceiptRecord(Record):
    """The receipt of a task."""

    at: Seconds  # when it was written
    task_id: Identifier
    client_id: Identifier
    accepted: bool


class EvaluationRecord(Record):
    """A client's evaluation of a version on its own validation rows.

    Attributes:
        at: When the answer was accepted.
        phase: The phase whose objective it was evaluated with; the end of a phase is evaluated
            with the next one, too.
    """

    at: Seconds
    task_id: Identifier
    client_id: Identifier
    version: Count
    phase: PhaseIndex
    kind: RowKind
    sums: EvaluationSums
    seconds: Seconds


class RoundRecord(Record):
    """Evaluation of a version that became due at all clients.

    Attributes:
        at: When it became due.
        closed_at: When the last answer came, or the others were given up; None while it is open.
        expected: Clients that had got any task by then.
    """

    at: Seconds
    closed_at: Seconds | None
    version: Count
    phase: PhaseIndex
    expected: Annotated[tuple[Identifier, ...], BeforeValidator(list_to_tuple)] = ()


class ScoreRecord(Record):
    """Score of an update that its client cannot inflate.

    Attributes:
        score: Drop in loss with the update applied (`server`, `federated`), or cosine.
        seconds: Computing time, of all evaluators together.
        nbytes: Bytes that travelled for it.
    """

    at: Seconds
    task_id: Identifier
    client_id: Identifier
    source: Identifier
    score: Annotated[float, Field(allow_inf_nan=False)]
    seconds: Seconds
    nbytes: Count


class AcceptedUpdate(Record):
    """An update that was applied or waits in the buffer."""

    at: Seconds  # when it was accepted
    task_id: Identifier
    client_id: Identifier
    worker_id: Identifier
    base_version: Count
    stats: ContributionStats

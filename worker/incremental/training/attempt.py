"""Attempt to learn a batch, with its record for the inbox and its summary for events. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from common.protocol.versions import CurrentModel
from learning.evaluation.measurement import Measurement
from worker.incremental.inbox.learning_store import LocalModel
from worker.incremental.report.history import BatchRecord
from worker.incremental.training.batches import LearningBatch
from worker.incremental.training.evaluation import GateResult


@dataclass(frozen=True)
class Attempt:
    """Attempt to learn a batch; `result` and `measured` are empty before the gate."""

    model: CurrentModel  # the global version
    local: LocalModel | None  # what the client had learned on top of it
    batch: LearningBatch
    at: float  # seconds since the epoch
    steps: int = 0
    seconds: float = 0.0
    result: GateResult | None = None
    measured: Mapping[str, tuple[Measurement, int]] = field(default_factory=dict)

    def record(self, verdict: str, reason: str = "") -> BatchRecord:
        first, *_ = items = self.batch.items
        return BatchRecord(
            number=0,
            run=self.model.run,
            version=self.local.version if self.local else self.model.version,
            kind=first.item.kind,
            task=first.item.task,
            at=self.at,
            items=len(items),
            held=len(self.batch.held_out),
            steps=self.steps,
            seconds=self.seconds,
            verdict=verdict,
            reason=reason[:500],
            figures=asdict(self.result.figures) if self.result else {},
        )

    def summary(self) -> str:
        """Return a sentence in figures, without user text."""
        text = f"{len(self.batch.items)} items learned in {self.steps} steps, {self.seconds:.1f} s"
        if self.result is None:
            return text
        if self.result.share < 1:
            text += f", {self.result.share:.0%} of the change kept"
        figures = self.result.figures
        text += f": loss {figures.new_before.loss:.3f} to {figures.new_after.loss:.3f}"
        if figures.anchor_before is not None and figures.anchor_after is not None:
            before, after = figures.anchor_before.loss, figures.anchor_after.loss
            text += f", anchors {before:.3f} to {after:.3f}"
        return text

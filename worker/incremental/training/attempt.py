"""One attempt to learn: what it was made of, and what is said of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from common.protocol.versions import CurrentModel
from worker.incremental.inbox.learning_store import LocalModel
from worker.incremental.report.history import BatchRecord
from worker.incremental.training.batches import LearningBatch
from worker.incremental.training.gate import GateFigures


@dataclass(frozen=True)
class Attempt:
    """An attempt to learn, as it is written down."""

    model: CurrentModel
    local: LocalModel | None
    prepared: LearningBatch
    at: float
    figures: GateFigures | None = None
    steps: int = 0
    seconds: float = 0.0
    share: float = 1.0  # of what was learned, that is kept

    def batch(self, verdict: str, reason: str = "") -> BatchRecord:
        """For the book."""
        entries = self.prepared.entries
        return BatchRecord(
            number=0,
            run=self.model.run,
            version=self.local.version if self.local else self.model.version,
            kind=entries[0].kind,
            task=entries[0].task,
            at=self.at,
            items=len(entries),
            held=len(self.prepared.held),
            steps=self.steps,
            seconds=self.seconds,
            verdict=verdict,
            reason=reason[:500],
            figures=self.figures.fields() if self.figures else {},
        )

    def text(self) -> str:
        """In figures, for the event feed."""
        text = f"{len(self.prepared.entries)} items are learned in {self.steps} steps,"
        text += f" {self.seconds:.1f} s"
        if self.share < 1:
            text += f", {self.share:.0%} of it kept"
        if (found := self.figures) is None:
            return text
        text += f": loss {found.new_before.loss:.3f} to {found.new_after.loss:.3f}"
        if found.anchor_before is not None and found.anchor_after is not None:
            before, after = found.anchor_before.loss, found.anchor_after.loss
            text += f", anchors {before:.3f} to {after:.3f}"
        return text

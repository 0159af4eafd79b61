"""Gate: the decision whether what was learned from users may be kept. Pure.

A correction is learned for good, so the new model must be better on the new items and no worse on
what it could do before. Called by `evaluation`; what passes goes to `validation/validator.py`, if
one is configured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from common.config.config import IncrementalConfig
from learning.evaluation.measurement import Measurement

TASK_TOLERANCE, TASK_SLACK = 1.1, 0.03
"""Factor and nats by which the loss on held-out items of the new items' own task may rise. More
than for all anchors, since these items are few. Contradicting items at least double their loss,
which a better loss on everything else could hide."""
SLACK = 0.01
"""Nats by which the anchor loss may always rise: 1.02 × a loss near zero would allow nothing."""


class BatchRejectionKind(Enum):
    """Cause of a rejection: one of the gate's checks, or something outside the gate."""

    NOT_FINITE = "not finite"
    NORM = "norm"
    FORGETTING = "forgetting"
    CONTRADICTION = "contradiction"
    NO_IMPROVEMENT = "no improvement"
    VALIDATOR = "validator"
    TRAINING = "training"


@dataclass(frozen=True)
class BatchRejection:
    """Reason why items are not learned."""

    kind: BatchRejectionKind
    reason: str

    @property
    def public_reason(self) -> str:
        """Reason for other machines: a validator's own words may repeat what users wrote."""
        if self.kind is BatchRejectionKind.VALIDATOR:
            return "the validator did not accept it"
        return self.reason


@dataclass(frozen=True)
class GateFigures:
    """Measurements of a shadow copy (`…_after`) and of the model that it started from.

    They are taken on new items that were held out (on all new items if they are few), on the
    anchors, and on earlier held-out items of the new items' own task; None if there are none. The
    names are part of a file format: the JSON in column `batch.figures`.
    """

    new_before: Measurement
    new_after: Measurement
    anchor_before: Measurement | None
    anchor_after: Measurement | None
    norm: float  # L2 norm of everything learned here that is not in the global version
    limit: float  # of that norm
    task_before: Measurement | None = None
    task_after: Measurement | None = None


def check(figures: GateFigures, config: IncrementalConfig) -> BatchRejection | None:
    """Return why the shadow copy may not be kept; None if it may."""
    measured = [figures.new_after, *([figures.anchor_after] if figures.anchor_after else [])]
    if not all(math.isfinite(m.loss) for m in measured) or not math.isfinite(figures.norm):
        return BatchRejection(BatchRejectionKind.NOT_FINITE, "a loss or the norm is not finite")
    if not config.gate:
        return None
    if figures.norm > figures.limit:
        reason = f"the norm of what was learned is {figures.norm:.3g}, over {figures.limit:.3g}"
        return BatchRejection(BatchRejectionKind.NORM, reason)
    return _check_losses(figures, config.anchor_tolerance)


def _check_losses(figures: GateFigures, tolerance: float) -> BatchRejection | None:
    if rise := _rise(figures.anchor_before, figures.anchor_after, tolerance, SLACK):
        return BatchRejection(BatchRejectionKind.FORGETTING, f"forgetting: anchor loss {rise}")
    if rise := _rise(figures.task_before, figures.task_after, TASK_TOLERANCE, TASK_SLACK):
        reason = f"contradicts earlier items of its task: loss {rise}"
        return BatchRejection(BatchRejectionKind.CONTRADICTION, reason)
    before, after = figures.new_before.loss, figures.new_after.loss
    if after < before:
        return None
    reason = f"no improvement on the new items: loss {before:.3f} to {after:.3f}"
    return BatchRejection(BatchRejectionKind.NO_IMPROVEMENT, reason)


def _rise(old: Measurement | None, new: Measurement | None, factor: float, slack: float) -> str:
    """Return how a loss rose beyond a factor and beyond `slack` nats; empty if it did not."""
    if old is None or new is None:
        return ""
    limit = max(factor * old.loss, old.loss + slack)
    return "" if new.loss <= limit else f"{old.loss:.3f} to {new.loss:.3f}, over {limit:.3f}"

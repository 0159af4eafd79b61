"""Whether what was learned from users may be kept. Pure.

A correction is learned to be kept for good, so the new model must be better at what is new and no
worse at what it could before.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from common.config.config import IncrementalConfig
from learning.evaluation.measurement import Measurement

TASK_TOLERANCE, TASK_SLACK = 1.1, 0.03
"""The same of the task that new items are of: so many times, or so many nats. More than of all
anchors, since these are few; what contradicts them makes their loss twice what it was and more,
which a better loss on everything else may hide."""
SLACK = 0.01
"""Nats by which the anchor loss may rise in any case: 1.02 × next to nothing would be nothing."""


@dataclass(frozen=True)
class GateFigures:
    """What is known of a shadow copy.

    Attributes:
        new_before: On new items that were held out (all of them, where they are few), by the model
            as it was.
        new_after: The same by the shadow copy.
        anchor_before: On what the model could before; None for a client without rows to measure by.
        anchor_after: The same by the shadow copy.
        norm: L2 norm of all that was learned here and is not in the global version.
        limit: What that may be.
        task_before: On what is held out of the new items' own task since earlier, by the model as
            it was; None where there is none.
        task_after: The same by the shadow copy.
    """

    new_before: Measurement
    new_after: Measurement
    anchor_before: Measurement | None
    anchor_after: Measurement | None
    norm: float
    limit: float
    task_before: Measurement | None = None
    task_after: Measurement | None = None

    def fields(self) -> dict[str, Any]:
        """Plain maps and numbers, for JSON."""
        return asdict(self)


def refusal(figures: GateFigures, config: IncrementalConfig) -> str:
    """Why the shadow copy is not kept, in words and figures; empty where it is."""
    measured = [figures.new_after, *([figures.anchor_after] if figures.anchor_after else [])]
    if not all(math.isfinite(m.loss) for m in measured) or not math.isfinite(figures.norm):
        return "it is not finite"
    if not config.gate:
        return ""
    if figures.norm > figures.limit:
        return f"its norm is {figures.norm:.3g}, over {figures.limit:.3g}"
    old, new = figures.anchor_before, figures.anchor_after
    if old is not None and new is not None:
        limit = max(config.anchor_tolerance * old.loss, old.loss + SLACK)
        if new.loss > limit:
            return f"it forgets: anchor loss {old.loss:.3f} to {new.loss:.3f}, over {limit:.3f}"
    old, new = figures.task_before, figures.task_after
    if old is not None and new is not None:
        limit = max(TASK_TOLERANCE * old.loss, old.loss + TASK_SLACK)
        if not new.loss <= limit:
            change = f"{old.loss:.3f} to {new.loss:.3f}, over {limit:.3f}"
            return f"it contradicts what its task has taught: loss {change}"
    if not figures.new_after.loss < figures.new_before.loss:
        before, after = figures.new_before.loss, figures.new_after.loss
        return f"it is no better at the new items: loss {before:.3f} to {after:.3f}"
    return ""

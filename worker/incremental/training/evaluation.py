"""Evaluation of a shadow copy against the model that it started from; `gate` decides.

After `shadow` in the path of an item. Nothing is written here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from common.config.config import IncrementalConfig
from common.protocol.tensors import Tensors
from learning.evaluation.measurement import Measurement
from worker.incremental.inbox.learning_store import add_tensors
from worker.incremental.training import gate
from worker.incremental.training.batches import LearningBatch
from worker.incremental.training.gate import BatchRejection, GateFigures
from worker.incremental.training.shadow import ShadowModel
from worker.trainer import l2_norm

SHARES = (1.0, 0.5)
"""Shares of the learned difference that are tried in turn. Near a model that is good on its
anchors, their loss rises with the square of a step while the gain on new items is proportional to
it: half of a difference that forgets too much keeps half of the gain for a quarter of the price.
There is no smaller share: what contradicts the anchors harms them in proportion, and a quarter of
flipped labels was hardly more than they tolerate."""
PERSONAL_GAIN = 0.98
"""Factor of the global version's loss on settled items below which the local part is kept."""


@dataclass(frozen=True)
class GateResult:
    """Largest share of a learned difference that passes the gate, or all of it if none does."""

    learned: Tensors  # that share of the difference
    after: Tensors  # θ of the model with it
    figures: GateFigures
    share: float
    rejection: BatchRejection | None


def evaluate(
    shadow: ShadowModel,
    config: IncrementalConfig,
    batch: LearningBatch,
    start: Tensors,
    learned: Tensors,
    parts: Sequence[Tensors],
) -> GateResult:
    """Find the largest of `SHARES` of what was learned that passes the gate.

    `start` is θ before the training, `learned` the difference that the training made to it; `parts`
    is what the client had learned before, on top of the global version.
    """
    whole: GateResult | None = None
    for share in SHARES:
        part = {name: share * tensor for name, tensor in learned.items()}
        after = add_tensors(start, part) or start
        own = add_tensors(part, *parts) or part
        known = whole.figures if whole else None
        figures = compare(shadow, config, batch, start, after, own, known)
        result = GateResult(part, after, figures, share, gate.check(figures, config))
        if result.rejection is None:
            return result
        whole = whole or result
    assert whole is not None
    return whole


def compare(
    shadow: ShadowModel,
    config: IncrementalConfig,
    batch: LearningBatch,
    before: Tensors,
    after: Tensors,
    own: Tensors,
    known: GateFigures | None = None,
) -> GateFigures:
    """Measure the models with θ `before` and `after`.

    `own` is everything that the second has on top of the global version. If there are `known`
    figures of an earlier call with the same `before`, that is not measured again.
    """
    new, anchors, task = batch.new_sets, batch.anchor_sets, batch.task_sets
    base = {name: after[name] - own[name] for name in after}  # the global version
    return GateFigures(
        new_before=known.new_before if known else _or_infinite(shadow.measure(before, new)),
        new_after=_or_infinite(shadow.measure(after, new)),
        anchor_before=known.anchor_before if known else shadow.measure(before, anchors),
        anchor_after=shadow.measure(after, anchors),
        norm=l2_norm(own),
        limit=config.max_norm * l2_norm(base),
        task_before=known.task_before if known else shadow.measure(before, task),
        task_after=shadow.measure(after, task),
    )


def still_helps(figures: GateFigures) -> bool:
    """Return whether what the federation has accepted is still worth keeping in the local part.

    The global version may contain most of it by now. Adding it once more would then go too far,
    which improves the loss on these very items and costs elsewhere.
    """
    old, new = figures.anchor_before, figures.anchor_after
    if old is not None and new is not None and new.loss > old.loss:
        return False
    return figures.new_after.loss < PERSONAL_GAIN * figures.new_before.loss


def _or_infinite(found: Measurement | None) -> Measurement:
    return found if found is not None else Measurement(math.inf)

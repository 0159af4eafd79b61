"""What a kind of work brings into a simulated run: its beginning, its tasks and its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from common.protocol.tensors import Tensors
from simulation.work.work import Work

LossOf = Callable[[Tensors, int], float]
"""Returns the held-out loss of tensors that were trained from a version."""


class Heldout(Protocol):
    """Measures versions."""

    def measure(self, version: int, tensors: Tensors, phase: int) -> tuple[float, dict[str, float]]:
        """Return the loss of a version, and further metrics by name."""


@dataclass(frozen=True)
class WorkParts:
    """The parts of one run.

    Attributes:
        work: Computes tasks.
        heldout: Measures versions.
        loss_of: Loss for the contribution source `server`.
    """

    work: Work
    heldout: Heldout
    loss_of: LossOf

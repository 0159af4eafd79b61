"""Placeholder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """One measurement after a batch."""

    batch: int
    learned: str
    task: str
    loss: float
    accuracy: float | None
    examples: int


@dataclass(frozen=True)
class StreamFigures:
    """Over a stream."""

    forgetting: float | None
    backward_transfer: float | None


def figures(measures: Sequence[Measure]) -> StreamFigures:
    """Not yet."""
    return StreamFigures(None, None)

"""What an evaluator is, and what it gets. `docs/extending.md` has an example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class VersionInfo:
    """A version to evaluate.

    Attributes:
        directory: A PEFT adapter, or a whole model without its tokenizer where the run trains all
            parameters.
        base: Directory of the base model, with its tokenizer.
        adapter: Whether `directory` is an adapter for the base model.
    """

    version: int
    directory: Path
    base: Path
    adapter: bool


class Evaluator(Protocol):
    """An evaluator of a run's versions, in a process beside the run.

    Keyword parameters of its constructor are its options.
    """

    def evaluate(self, version: VersionInfo) -> Mapping[str, float]:
        """Return figures of a version by name."""

    def close(self) -> None:
        """Release what the evaluator holds; called once, at the end."""

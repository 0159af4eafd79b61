"""A run as it is evaluated: by its coordinator at the end, or by anyone at any time.

`look` changes nothing in the run directory, so the run may be finished, stopped, or running.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config.config import PhaseConfig
from common.protocol.tasks import BaseRef, LoraSpec
from common.protocol.tensors import Tensors
from common.protocol.versions import VersionSummary
from coordinator.storage.run import Run
from evaluation.run_record import Recorded


@dataclass(frozen=True)
class Opened:
    """What an evaluation needs to know of a run.

    Attributes:
        directory: Of the run.
        name: Of the run.
        base: The base model.
        base_path: Its directory on this machine.
        lora: The adapter's shape; None where all parameters are trained.
        labels: Class names, where the run classifies.
        max_length: Tokens of a row, at most.
        phases: Of the plan.
        sources: What became of each source's rows, by kind.
        summaries: Of all versions, oldest first.
        tensors: θ of a version that is on the disk; `RunError` for another.
    """

    directory: Path
    name: str
    base: BaseRef
    base_path: Path
    lora: LoraSpec | None
    labels: tuple[str, ...]
    max_length: int
    phases: tuple[PhaseConfig, ...]
    sources: Mapping[str, Any]
    summaries: tuple[VersionSummary, ...]
    tensors: Callable[[int], Tensors]

    def place(self, version: int) -> Path:
        """The directory of a version."""
        return self.directory / "versions" / f"{version:06d}"


def of(run: Run) -> Opened:
    """A run that is open."""
    return Opened(
        directory=run.directory,
        name=run.name,
        base=run.template.base,
        base_path=run.base_path,
        lora=run.template.lora,
        labels=run.template.labels,
        max_length=run.template.max_length,
        phases=run.plan.phases,
        sources=run.sources,
        summaries=tuple(run.journal.versions()),
        tensors=run.versions.read,
    )


def look(found: Recorded, base_path: Path) -> Opened:
    """A run that someone else may have open.

    Args:
        found: What its directory says.
        base_path: Directory of its base model.
    """
    return Opened(
        directory=found.directory,
        name=found.config.run.name,
        base=found.base,
        base_path=base_path,
        lora=found.config.model.lora,
        labels=found.labels,
        max_length=found.config.model.max_length,
        phases=found.config.phase,
        sources=found.sources,
        summaries=found.summaries,
        tensors=found.tensors,
    )

"""What a tracker is, and what it gets. `docs/extending.md` has an example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Outcome = Literal["finished", "stopped"]


@dataclass(frozen=True)
class RunInfo:
    """The run that is tracked.

    Attributes:
        settings: The run's configuration by dotted key, without addresses.
        tracked_id: What `Tracker.start` returned the first time; None in a new run.
    """

    name: str
    run_id: str
    directory: Path
    settings: Mapping[str, str | int | float | bool]
    tracked_id: str | None = None


@dataclass(frozen=True)
class Figures:
    """Figures of one version.

    Attributes:
        key: Names what was measured, once in a run: a version, an evaluation, an evaluator's.
        at: Time, in seconds since the epoch.
        values: Figures by name, such as `train/loss`; all are finite.
    """

    key: str
    version: int
    at: float
    values: Mapping[str, float]


class Tracker(Protocol):
    """A tracker of one run, in a process of its own.

    Keyword parameters of its constructor are its options. All figures of a version need not come
    together, and those of an evaluation may come after those of later versions.
    """

    def start(self, run: RunInfo) -> str:
        """Begin to track the run, or continue `run.tracked_id`; return the id to continue by."""

    def log(self, figures: Figures) -> None:
        """Record figures; return once they are safe."""

    def close(self, outcome: Outcome) -> None:
        """End the tracked run; a stopped one may be continued."""

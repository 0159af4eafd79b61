"""Records of a simulated run, in its run directory, for tables and experiments.

`simulation.jsonl` has a line for each version that was measured on held-out rows, as it was made:

    version      its number
    seconds      virtual time since the run began
    loss         mean held-out loss; of the analytic objective F(x) − F(x*), which is 0 at best
    metrics      further held-out metrics, as `accuracy`, by name
    updates      updates that were accepted up to then
    tasks        training tasks that were issued up to then, repeated attempts counted
    bytes_up     bytes of all answers up to then, and ...
    bytes_down   ... of all tasks with their adapters, in bytes

`simulation.json` is written at the end; its keys are the fields of `SimulationSummary`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from common.errors import RunError
from common.files import append_jsonl, read_jsonl, write_durable

R = TypeVar("R")
MEASUREMENTS = "simulation.jsonl"
SUMMARY = "simulation.json"
INTERRUPTED = "interrupted"
"""Reason of a simulation that a signal ended."""


@dataclass(frozen=True)
class Measurement:
    """Held-out figures of one version: a line of `simulation.jsonl`."""

    version: int
    seconds: float
    loss: float
    metrics: Mapping[str, float]
    updates: int
    tasks: int
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True)
class SimulationSummary:
    """End of a simulated run: `simulation.json`.

    Attributes:
        complete: Whether the plan is fulfilled, or the target was reached.
        reason: Why it ended, for people.
        seconds: Virtual time that it took.
        versions: Number of the newest version.
        updates: Accepted updates.
        rejected: Answers that were refused.
        lost: Answers that were lost on the way.
        target_s: Virtual time to the target loss; None if it was not reached, or none was set.
        final_loss, best_loss: Held-out loss; None if it was not measured.
        final_metrics: Further metrics of the version that was measured last.
        wall_s: Time that the simulation took on this machine.
    """

    seed: int
    complete: bool
    reason: str
    seconds: float
    versions: int
    tasks: int
    updates: int
    rejected: int
    lost: int
    bytes_up: int
    bytes_down: int
    target_s: float | None
    final_loss: float | None
    best_loss: float | None
    final_metrics: Mapping[str, float] = field(default_factory=dict)
    wall_s: float = 0.0


def append_measurement(directory: Path, measurement: Measurement) -> None:
    append_jsonl(directory / MEASUREMENTS, [asdict(measurement)])


def read_measurements(directory: Path) -> Sequence[Measurement]:
    """Return the measurements of a run directory, by version; none if it has no such file."""
    lines = read_jsonl(directory / MEASUREMENTS)
    return [_parsed(Measurement, line, directory / MEASUREMENTS) for line in lines]


def write_summary(directory: Path, summary: SimulationSummary) -> None:
    write_durable(directory / SUMMARY, json.dumps(asdict(summary), indent=1).encode())


def read_summary(directory: Path) -> SimulationSummary | None:
    """Return how a simulated run ended; None while it has not."""
    path = directory / SUMMARY
    if not path.exists():
        return None
    return _parsed(SimulationSummary, json.loads(path.read_text(encoding="utf-8")), path)


def _parsed(kind: type[R], values: dict[str, Any], path: Path) -> R:
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    try:
        return kind(**{key: value for key, value in values.items() if key in known})
    except TypeError:
        raise RunError(f"{path} is damaged", "simulate again with --new") from None

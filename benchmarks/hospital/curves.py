"""Figures of an arm: held-out loss over time, and what became of the tasks that were trained."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.hospital.fccl_arm import NAME
from benchmarks.hospital.heldout import Heldout
from benchmarks.hospital.scenario import Scenario
from benchmarks.hospital.timeline import Result
from common.protocol.tensors import Tensors
from common.run_directory.recorded_run import RecordedRun, read_run

_TRAINED = re.compile(r"^\d\d:\d\d:\d\d +(trained|round \d+:)", re.MULTILINE)
_COUNTED = re.compile(r"aggregate_train: Received (\d+) results")


@dataclass(frozen=True)
class Point:
    """A version: seconds of the scenario since its beginning, and its held-out figures."""

    at_s: float
    loss: float
    accuracy: float


def measure(name: str, out: Path, scenario: Scenario, heldout: Heldout) -> list[Point]:
    """Return the versions of an arm, oldest first; they are measured once."""
    path = out / f"{name}.curve.json"
    if not path.exists():
        result = Result.load_from(out / f"{name}.json")
        points = []
        for at, file in result.versions:
            loss, accuracy = heldout.measure(_read(Path(file)))
            at_s = max(0.0, at - result.began) * scenario.scale
            points.append((round(at_s, 1), round(loss, 5), round(accuracy, 4)))
        path.write_text(json.dumps(points) + "\n", encoding="utf-8")
    return [Point(*values) for values in json.loads(path.read_text(encoding="utf-8"))]


def count_tasks(name: str, out: Path, scenario: Scenario) -> tuple[int, int]:
    """Return how many tasks the sites trained, and how many of them became part of a version."""
    logs = out / name / "logs"
    trained = 0
    for site in scenario.sites:
        for path in (logs / f"{site.name}.log", logs / f"{site.name}-trainer.log"):
            if path.exists():
                trained += len(_TRAINED.findall(path.read_text(encoding="utf-8")))
    log = logs / "run.log"
    if log.exists():
        return trained, sum(map(int, _COUNTED.findall(log.read_text(encoding="utf-8"))))
    run = read_run(out / name / "runs" / NAME)
    return trained, sum(len(version.updates) for version in run.versions)


def longest_pause(points: list[Point], start_s: float, end_s: float, last_s: float) -> float:
    """Return the longest time without a new version that reaches into a span of time.

    What lies before the span does not count; what lies after it does, up to `last_s`.
    """
    times = [point.at_s for point in points]
    spans = zip(times, [*times[1:], last_s], strict=True)
    return max((b - max(a, start_s) for a, b in spans if b > start_s and a < end_s), default=0.0)


def time_to(points: list[Point], loss: float) -> float | None:
    """Return when the first version has this loss; None if there is none."""
    return next((point.at_s for point in points if point.loss <= loss), None)


def time_to_accuracy(points: list[Point], accuracy: float) -> float | None:
    """Return when the first version has this accuracy; None if there is none."""
    return next((point.at_s for point in points if point.accuracy >= accuracy), None)


def _read(file: Path) -> Tensors:
    if file.suffix == ".npz":
        with np.load(file) as found:
            return {name: found[name] for name in found.files}
    run: RecordedRun = read_run(file.parents[1])
    return run.tensors(int(file.name))

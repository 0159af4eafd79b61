"""Table and picture of all arms that have a result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.hospital import curves
from benchmarks.hospital.curves import Point
from benchmarks.hospital.fccl_arm import NAME
from benchmarks.hospital.heldout import Heldout
from benchmarks.hospital.scenario import Scenario
from benchmarks.hospital.timeline import Result
from common.document import plotting
from common.run_directory.recorded_run import read_run
from learning.training.device import Compute

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    "fccl": "fccl",
    "fccl-rounds": "fccl in rounds",
    "fccl-unclipped": "fccl without norm clip",
    "flower": "Flower, all sites",
    "flower-tolerant": "Flower, tolerant",
}
COLOURS = {"fccl": "#2f6fb0", "fccl-rounds": "#7fb3de",
    "fccl-unclipped": "#3a9e5f", "flower": "#c2452d",
           "flower-tolerant": "#e08a3c"}  # fmt: skip


LOSSES = (0.6, 0.55, 0.5)
ACCURACY = 0.78
HEAD = (
    "arm",
    *(f"minutes to loss {loss:g}" for loss in LOSSES),
    f"minutes to accuracy {ACCURACY:g}",
    "lowest loss",
    "last loss",
    "last accuracy",
    "versions",
    "tasks trained",
    "counted",
    "longest pause at the cut",
    "after the loss of a site",
    "MB",
    "load",
)


def write(scenario: Scenario, out: Path) -> str:
    """Measure what is not measured yet, write hospital.png, and return the table."""
    names = [name for name in TITLES if (out / f"{name}.json").exists()]
    run = read_run(out / "fccl" / "runs" / NAME)
    compute = Compute(torch.device("cpu"), 1, False)
    heldout = Heldout(run, out / "rows" / "base", out / "rows" / "heldout.jsonl", compute)
    points = {name: curves.measure(name, out, scenario, heldout) for name in names}
    picture = plotting.to_png(_draw(scenario, points))
    (out / "hospital.png").write_bytes(picture)
    rows = [_row(name, points[name], scenario, out) for name in names]
    lines = [HEAD, ["---"] * len(HEAD), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(name: str, points: list[Point], scenario: Scenario, out: Path) -> list[str]:
    result = Result.load_from(out / f"{name}.json")
    trained, counted = curves.count_tasks(name, out, scenario)
    times = [curves.time_to(points, loss) for loss in LOSSES]
    times.append(curves.time_to_accuracy(points, ACCURACY))
    lowest = min(points, key=lambda point: point.loss)
    cut_end, end = scenario.cut_at_s + scenario.cut_s, scenario.end_s
    return [
        TITLES[name],
        *("never" if at is None else f"{at / 60:.1f}" for at in times),
        f"{lowest.loss:.3f} at {lowest.at_s / 60:.1f}",
        f"{points[-1].loss:.3f}",
        f"{points[-1].accuracy:.3f}",
        str(len(points) - 1),
        str(trained),
        str(counted),
        f"{curves.longest_pause(points, scenario.cut_at_s, cut_end, end) / 60:.1f}",
        f"{curves.longest_pause(points, scenario.lost_at_s, end, end) / 60:.1f}",
        f"{result.nbytes / 1e6:.0f}",
        f"{result.load}",
    ]


def _draw(scenario: Scenario, points: dict[str, list[Point]]) -> Figure:
    figure = plotting.new_figure(8.0, 4.5)
    axes = figure.add_subplot()
    cut = scenario.cut_at_s / 60, (scenario.cut_at_s + scenario.cut_s) / 60
    axes.axvspan(*cut, color="0.9", label="network cut")
    axes.axvline(scenario.lost_at_s / 60, color="0.5", ls=":", label=f"{scenario.lost} is lost")
    for name, own in points.items():
        minutes = [point.at_s / 60 for point in own] + [scenario.end_s / 60]
        losses = [point.loss for point in own] + [own[-1].loss]
        axes.step(minutes, losses, where="post", color=COLOURS[name], label=TITLES[name])
    axes.set_xlabel("minutes of the scenario")
    axes.set_ylabel("held-out loss, nats")
    axes.set_xlim(0, scenario.end_s / 60)
    axes.legend(fontsize=9)
    return figure

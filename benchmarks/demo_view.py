"""What the view of `fccl demo` costs the training beside it: runs with it and without, in turns.

The view runs on a pseudo-terminal of 120 × 35. Seconds are the coordinator's, from the first
version to the last; tokens per second are the worker's own, over its training time; processor
seconds are those of the process that trains, from its start to its end, and of the view. Medians,
and the single runs.

    python -m benchmarks.demo_view --runs 3
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median

from tests.support.terminal import terminal

SIZE = (120, 35)
LONG = 1200.0  # bounds a run, in seconds


@dataclass(frozen=True)
class Cost:
    """Of one run."""

    seconds: float
    tokens_per_s: float
    training: float
    view: float


def measure(view: bool, config: list[str], folder: Path) -> Cost:
    """Run the demo once."""
    args = ["demo", "--out", "runs/x", *config, *([] if view else ["--plain"])]
    before, drawn = _processor(), 0.0
    with terminal(*args, directory=folder, variables={}, size=SIZE) as place:
        if view:
            place.shows("; press q to leave", LONG)
            drawn = _processor_of(place.pid)  # its child is not counted before it has ended
            place.press("q")
        if place.end(LONG) != 0:
            raise SystemExit(place.text)
    versions = json.loads((folder / "runs/x/report/report.json").read_text())["versions"]
    updates = [update for version in versions for update in version["updates"]]
    return Cost(
        seconds=versions[-1]["at"] - versions[0]["at"],
        tokens_per_s=sum(u["num_tokens"] for u in updates)
        / sum(u["train_seconds"] for u in updates),
        training=_processor() - before - drawn,
        view=drawn,
    )


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _processor_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--config", type=Path)
    wanted = parser.parse_args()
    config = ["--config", str(wanted.config.resolve())] if wanted.config else []
    found: dict[str, list[Cost]] = {"--plain": [], "view": []}
    for _ in range(wanted.runs):
        for name, costs in found.items():
            with tempfile.TemporaryDirectory() as folder:
                costs.append(measure(name == "view", config, Path(folder)))
            print(name, costs[-1], flush=True)
    print("| | seconds | tokens/s | processor s, training | processor s, view |")
    print("| --- | --- | --- | --- | --- |")
    for name, costs in found.items():
        rows = zip(*(astuple(cost) for cost in costs), strict=True)
        cells = (f"{median(row):,.1f} ({', '.join(f'{v:,.0f}' for v in row)})" for row in rows)
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

"""Cost of the screen of `fccl demo` for the training beside it: runs with and without, in turns.

    python -m benchmarks.demo_view --runs 3

The screen runs on a pseudo-terminal of 120 × 35. Seconds are the coordinator's, from the first
version to the last; tokens per second are the worker's, over its training time; processor seconds
are those of the process that trains, from start to end, and of the process with the screen. The
table has medians, and the single runs in brackets.
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
LIMIT_S = 1200.0  # for a run


@dataclass(frozen=True)
class Cost:
    """Cost of one run."""

    seconds: float
    tokens_per_s: float
    training_s: float  # of the processor
    screen_s: float  # of the processor


def measure(screen: bool, config: list[str], directory: Path) -> Cost:
    """Run the demo once."""
    args = ["demo", "--out", "runs/x", *config, *([] if screen else ["--plain"])]
    before, screen_s = _children_processor_s(), 0.0
    with terminal(*args, directory=directory, variables={}, size=SIZE) as place:
        if screen:
            place.shows("; press q to leave", LIMIT_S)
            screen_s = _processor_s(place.pid)  # its child is not counted before it has ended
            place.press("q")
        if place.end(LIMIT_S) != 0:
            raise SystemExit(place.text)
    versions = json.loads((directory / "runs/x/report/report.json").read_text())["versions"]
    updates = [update for version in versions for update in version["updates"]]
    return Cost(
        seconds=versions[-1]["at"] - versions[0]["at"],
        tokens_per_s=sum(u["num_tokens"] for u in updates)
        / sum(u["train_seconds"] for u in updates),
        training_s=_children_processor_s() - before - screen_s,
        screen_s=screen_s,
    )


def _children_processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--config", type=Path)
    options = parser.parse_args()
    config = ["--config", str(options.config.resolve())] if options.config else []
    costs_by_mode: dict[str, list[Cost]] = {"--plain": [], "screen": []}
    for _ in range(options.runs):
        for mode, costs in costs_by_mode.items():
            with tempfile.TemporaryDirectory() as directory:
                costs.append(measure(mode == "screen", config, Path(directory)))
            print(mode, costs[-1], flush=True)
    print("| | seconds | tokens/s | processor s, training | processor s, screen |")
    print("| --- | --- | --- | --- | --- |")
    for mode, costs in costs_by_mode.items():
        rows = zip(*(astuple(cost) for cost in costs), strict=True)
        cells = (f"{median(row):,.1f} ({', '.join(f'{v:,.0f}' for v in row)})" for row in rows)
        print(f"| {mode} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

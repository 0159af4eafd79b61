"""Run of the fuzzer: processes with limits, failing inputs kept as cases, a table at the end.

python -m tests.fuzz --inputs 1000000 --minutes 40 --seed 1
python -m tests.fuzz --targets wire,token --inputs 10000
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.engine import Counts
from tests.fuzz.processes import run_processes
from tests.fuzz.registry import TARGETS


def main() -> int:
    options = _options()
    names = options.targets.split(",") if options.targets else list(TARGETS)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=_memory_folder()) as folder:
        counts, died = run_processes(
            names,
            Path(folder),
            seed=options.seed,
            inputs=options.inputs,
            processes=options.processes,
            until=began + 60 * options.minutes,
        )
    print(_table(counts))
    tried, failed = sum(c.tried for c in counts.values()), Counter[str]()
    for name, each in counts.items():
        failed.update({f"{name}: {kind}": n for kind, n in each.failed.items()})
    minutes = (time.monotonic() - began) / 60
    print(f"\n{tried:,} inputs in {minutes:.1f} min, seed {options.seed}, {died} processes died")
    for kind, count in failed.most_common():
        print(f"FAILED {count:6d} × {kind}")
    return 1 if failed or died else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--targets", default="", help="names, separated by commas")
    return parser.parse_args()


def _memory_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _table(counts: dict[str, Counts]) -> str:
    """Return a row of Markdown for each target."""
    lines = ["| boundary | inputs | accepted | refused | failed | ms each |", "|---|" + "--:|" * 5]
    for name, c in sorted(counts.items()):
        failed = sum(c.failed.values())
        refused = c.tried - c.accepted - failed
        each = 1000 * c.seconds / max(1, c.tried)
        lines.append(
            f"| {name} | {c.tried:,} | {c.accepted:,} | {refused:,} | {failed:,} | {each:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

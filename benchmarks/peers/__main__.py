"""Compare the versions that fccl, Flower and APPFL make of the same updates of real clients.

    python -m benchmarks.peers --data DIR [--work DIR] [--out docs/results]

An environment for each peer is made in the work directory, with `pip install`. DIR is that of
`python -m simulation.experiments`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np

from benchmarks.peers import ours
from benchmarks.peers.shared import Arrays, read_updates, read_versions
from benchmarks.peers.updates import simulate_updates, write_updates
from common.run_directory.recorded_run import read_run

HERE = Path(__file__).parent
PEERS = {"Flower": ("flower", "flwr==1.42.*"), "APPFL": ("appfl", "appfl==1.12.*")}
VARIANTS = (", gradients", ", models", ", as ours")
EQUAL = 1e-5
"""Difference of the steps up to which rounding explains it: float32 has 24 bits."""
REASONS = {
    (
        "Flower",
        "FedAdagrad, β₁ = 0",
    ): "Flower begins with v = 0; here and in the paper it begins with τ²",
    ("Flower", "FedAdam"): "Flower begins with v = 0, and corrects η for the bias of m and v",
    ("Flower", "FedYogi"): "Flower begins with v = 0; here and in the paper it begins with τ²",
    ("APPFL", "FedBuff, s = (1 + τ)^-0.5, models"): "APPFL's default adds s (x_i − x_t), a step"
    " toward the client's model, which takes back what others did since; fccl adds s Δ_i",
    ("APPFL", "FedAsync, s = (1 + τ)^-0.5, models"): "the paper's mixing x ← (1 − α s) x + α s x_i;"
    " fccl adds α s Δ_i, which is the same only for a fresh base",
}


INTRODUCTION = """# The aggregation code of Flower and APPFL, on the same updates

**Question.** Where the algorithm is the same, do Flower 1.42, APPFL 1.12 and fccl make the same
versions?

**Expected**, written before the run. Equal up to the rounding of float32 for FedAvg, FedAvgM,
trimmed mean and median; other numbers for adaptive optimizers where a framework begins with other
moments, for Krum, because Flower compares whole models, and for asynchronous algorithms that mix
models instead of adding updates.

**Settings.** 6 versions of 5 updates from a simulated asynchronous run on MiniLM (62,210 values in
each update), with the staleness of that run; for FedAsync each update is a version. Every framework
goes on from its own version and gets the same Δ of each client. Each runs in an environment of its
own, and its code is called as its server does. Columns: ‖ours − theirs‖ / ‖ours − version 0‖.
fccl's floor, cap, norm clip and participation factor, which the others do not have, are off.

**Command.** `python -m benchmarks.peers --data DIR`
"""
FOUND = """## What was found

Where the algorithm is the same, the numbers are equal. The differences are choices:

* **Adaptive optimizers.** Flower begins with v = 0, and corrects FedAdam's bias; fccl and APPFL
  follow algorithm 2 of Reddi et al.: v begins with τ², and there is no correction. With our
  beginning, and the correction taken away ("as ours"), Flower makes the same versions, so nothing
  else differs.
* **Asynchronous algorithms.** APPFL's default mixes the client's *model* into the newest version,
  as the FedAsync paper writes it, so a stale model takes back what others did since its base. fccl
  adds the *update*, as FedBuff does. With `gradient_based` APPFL does the same, and makes the same
  versions, staleness included.
* **Krum** makes the same choice, against what was expected: the models of a round begin with one
  version, so distances of models are distances of updates.
* Flower 1.42 has no asynchronous strategy to compare with.
"""


def main() -> None:
    """Make the environments and the updates, run all sides, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/experiments"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
    folder = arguments.work / "peers-files"
    folder.mkdir(parents=True, exist_ok=True)
    run = simulate_updates(arguments.data, arguments.work)
    write_updates(run, read_run(run).tensors(0), folder)
    start, rounds = read_updates(folder)
    own = ours.versions(start, rounds)
    rows = []
    for peer, (name, package) in PEERS.items():
        python = environment(arguments.work / f"env-{name}", package)
        subprocess.run([python, HERE / f"{name}_side.py", folder], check=True)
        for algorithm, found in read_versions(folder / f"{name}.npz").items():
            base = algorithm
            for variant in VARIANTS:
                base = base.removesuffix(variant)
            rows.append((peer, algorithm, *differences(start, own[base], found)))
    text = table(rows)
    print(text)
    (arguments.out / "peers.md").write_text(f"{INTRODUCTION}\n{text}\n{FOUND}", encoding="utf-8")


def environment(folder: Path, package: str) -> Path:
    """Return the interpreter of an environment with a package, and make it if it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", package], check=True)
    return python


def differences(start: Arrays, own: list[Arrays], peer: list[Arrays]) -> tuple[float, float]:
    """Return ‖ours − theirs‖ over the way from version 0, after the first and the last version."""

    def relative(number: int) -> float:
        apart = sum(float(np.square(own[number][k] - peer[number][k]).sum()) for k in start)
        way = sum(float(np.square(own[number][k] - start[k]).sum()) for k in start)
        return float(np.sqrt(apart / way))

    return relative(0), relative(len(own) - 1)


def table(rows: list[tuple[str, str, float, float]]) -> str:
    """Return the table in Markdown."""
    lines = [
        "| algorithm | peer | after 1 version | after the last | |",
        "|---|---|---:|---:|---|",
    ]
    for peer, algorithm, first, last in sorted(rows, key=lambda row: row[1]):
        why = "equal" if last < EQUAL else REASONS.get((peer, algorithm), "not explained")
        lines.append(f"| {algorithm} | {peer} | {first:.1e} | {last:.1e} | {why} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

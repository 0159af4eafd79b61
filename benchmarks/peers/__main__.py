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
    ("Flower", "Krum"): "Flower compares whole models, fccl updates; see the choice of clients",
    ("APPFL", "FedBuff, s = (1 + τ)^-0.5, models"): "APPFL's default adds s (x_i − x_t), a step"
    " toward the client's model, which takes back what others did since; fccl adds s Δ_i",
    ("APPFL", "FedAsync, s = (1 + τ)^-0.5, models"): "the paper's mixing x ← (1 − α s) x + α s x_i;"
    " fccl adds α s Δ_i, which is the same only for a fresh base",
}


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
    (arguments.out / "peers-table.md").write_text(text, encoding="utf-8")


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

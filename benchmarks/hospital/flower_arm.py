"""The scenario with Flower: a SuperLink and SuperNodes in Flower's deployment mode."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.hospital.network import Network
from benchmarks.hospital.processes import Processes, wait_until
from benchmarks.hospital.scenario import Scenario
from benchmarks.hospital.timeline import Result, play
from cli.services.ports import free_port
from common.protocol.tensors import Tensors

ROOT = Path(__file__).parents[2]
APP = Path(__file__).parent / "flower_app"
RELEASE = "flwr==1.42.*"
ROUNDS = 100000


@dataclass(frozen=True)
class Strategy:
    """Settings of Flower's FedAvg; `timeout_s` of a round, before it is scaled."""

    nodes: int  # min_available_nodes
    least: int  # min_train_nodes
    timeout_s: float


def make_environment(directory: Path) -> Path:
    """Install Flower into an environment of its own, unless it is there; return its programs."""
    programs = directory / "bin"
    if not (programs / "flwr").exists():
        subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
        install = [str(programs / "python"), "-m", "pip", "install", "-q", RELEASE]
        subprocess.run(install, check=True)
    return programs


class FlowerArm:
    """Federation of one arm in a directory of its own."""

    def __init__(
        self, scenario: Scenario, directory: Path, rows: Path, programs: Path, run: Path
    ) -> None:
        """Create it.

        Args:
            scenario: The scenario.
            directory: Its directory, empty or new.
            rows: Folder of the sites' rows and of the base model.
            programs: Folder of Flower's programs.
            run: Directory of an fccl run, for the settings of training.
        """
        self.scenario, self.directory = scenario, directory
        self._rows, self._base = rows, rows / "base"
        self._programs, self._run = programs, run
        self._out = directory / "versions"

    def play(self, strategy: Strategy, start: Tensors, say: Callable[[str], None]) -> Result:
        """Run the whole scenario, from the tensors of version 0."""
        with self._running(strategy, start, ROUNDS, None) as (processes, network):
            lost = self.scenario.lost
            names = (lost, f"{lost}-trainer")
            began = self._versions()[0][0]
            result = play(self.scenario, network, began, lambda: processes.kill(*names), say)
        return replace(result, versions=self._versions())

    def first_version(self, start: Tensors, seed: int) -> Tensors:
        """Let a single site train one round with a seed; return the result."""
        with self._running(Strategy(1, 1, 3600.0), start, 1, seed):
            wait_until(lambda: len(self._versions()) == 2, "the first round")
        with np.load(self._versions()[-1][1]) as file:
            return {name: file[name] for name in file.files}

    def _versions(self) -> tuple[tuple[float, str], ...]:
        return tuple((path.stat().st_mtime, str(path)) for path in sorted(self._out.glob("*.npz")))

    @contextmanager
    def _running(
        self, strategy: Strategy, start: Tensors, rounds: int, seed: int | None
    ) -> Iterator[tuple[Processes, Network]]:
        """Run everything: the block begins when all sites are connected and round 1 begins."""
        self._out.mkdir(parents=True)
        np.savez(self.directory / "start.npz", **start)  # type: ignore[arg-type]
        network = Network()
        try:
            with Processes(self.directory / "logs") as processes:
                self._start(processes, network, seed)
                self._submit(processes, strategy, rounds)
                yield processes, network
        finally:
            network.close()

    def _start(self, processes: Processes, network: Network, seed: int | None) -> None:
        self._start_trainers(processes, seed)
        port, here, own = free_port(), self.directory, self._environment()
        options = ("--insecure", "--disable-runtime-dependency-installation")
        database = ("--database", here / "superlink.db", "--port", port)
        link = (self._programs / "flower-superlink", *options, *database)
        processes.start("superlink", [str(word) for word in link], own, here)
        wait_until(lambda: "running on http" in self._text(processes, "superlink"), "SuperLink")
        address = f'address = "127.0.0.1:{port}"\ninsecure = true\n'
        (here / "home" / "config.toml").write_text(
            f'[superlink]\ndefault = "hospital"\n\n[superlink.hospital]\n{address}'
        )
        for site in self.scenario.sites:
            place = f'site="{site.name}" socket="{here / site.name}.sock"'
            node = (
                *(self._programs / "flower-supernode", "--insecure"),
                *("--superlink", network.connect_port(port), "--port", str(free_port())),
                *("--node-config", place),
            )
            processes.start(site.name, node, own, here)
        names = [site.name for site in self.scenario.sites]
        wait_until(
            lambda: all("SuperNode ID" in self._text(processes, name) for name in names),
            "connection of all SuperNodes",
        )

    def _start_trainers(self, processes: Processes, seed: int | None) -> None:
        for site in self.scenario.sites:
            words = (
                *(sys.executable, "-m", "benchmarks.hospital.trainer_process", self._run),
                *(self._base, site.name, self._rows / f"{site.name}.jsonl"),
                *(self.directory / f"{site.name}.sock", str(self.scenario.scaled(site.step_s))),
                *(() if seed is None else (str(seed),)),
            )
            name, own = f"{site.name}-trainer", {"PYTHONPATH": str(ROOT)}
            processes.start(name, words, own, self.directory)
        sockets = [self.directory / f"{site.name}.sock" for site in self.scenario.sites]
        wait_until(lambda: all(path.exists() for path in sockets), "start of the trainers")

    def _submit(self, processes: Processes, strategy: Strategy, rounds: int) -> None:
        """Start the run, and wait until its first round begins."""
        config = {
            "start": f'"{self.directory / "start.npz"}"',
            "out": f'"{self._out}"',
            "rounds": rounds,
            "nodes": strategy.nodes,
            "least": strategy.least,
            "timeout": self.scenario.scaled(strategy.timeout_s),
        }
        words = " ".join(f"{key}={value}" for key, value in config.items())
        flwr = (self._programs / "flwr", "run", APP, "hospital", "--stream", "--run-config", words)
        processes.start("run", flwr, self._environment(), self.directory)
        wait_until(lambda: len(self._versions()) == 1, "the start of the run")

    def _environment(self) -> dict[str, str]:
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        return {
            "PATH": f"{self._programs}:/usr/bin:/bin",
            "FLWR_HOME": str(home),
            "HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PYTHONPATH": "",
        }

    def _text(self, processes: Processes, name: str) -> str:
        return processes.log(name).read_text(encoding="utf-8", errors="replace")

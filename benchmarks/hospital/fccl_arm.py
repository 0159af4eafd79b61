"""The scenario with fccl: a coordinator and invited sites over RabbitMQ and Redis."""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.hospital.network import Network
from benchmarks.hospital.processes import Processes, wait_until
from benchmarks.hospital.rows import LABELS, MAX_LENGTH
from benchmarks.hospital.scenario import BATCH, Scenario
from benchmarks.hospital.timeline import Result, play
from cli.services import servers
from cli.services.ports import free_port
from cli.services.rabbitmq_server import PrivateRabbitMQ
from cli.services.redis_server import PrivateRedis
from common.run_directory.recorded_run import read_run

ROOT = Path(__file__).parents[2]
NAME = "hospital"
CONFIG = """\
[run]
name = "{name}"
seed = {seed}
keep_versions = 100000
[broker]
url = "{broker}"
management = "{management}"
[store]
url = "{store}"
[model]
name = "{base}"
max_length = {max_length}
dtype = "float32"
[model.lora]
r = 8
alpha = 16
dropout = 0.0
[data]
clients = 0
labels = {labels}
[[phase]]
objective = "classification"
versions = {versions}
local_steps = 0
local_epochs = 1
batch_size = {batch}
lr = {lr}
lr_schedule = "constant"
[schedule]
concurrency = {clients}
min_clients = {min_clients}
lease_s = {lease}
flush_s = {flush}
task_deadline_s = {deadline}
{schedule}
[codec]
update = "{codec}"
[evaluation]
federated = false
[samples]
prompts = 0
"""


class FcclArm:
    """Federation of one arm in a directory of its own."""

    def __init__(self, scenario: Scenario, directory: Path, rows: Path) -> None:
        """Create it.

        Args:
            scenario: The scenario.
            directory: Its directory, empty or new.
            rows: Folder of the sites' rows and of the base model.
        """
        self.scenario, self.directory = scenario, directory
        self._rows, self._base = rows, rows / "base"
        self.run_directory = directory / "runs" / NAME
        self._began = 0.0

    def play(self, lr: float, seed: int, say: Callable[[str], None], schedule: str = "") -> Result:
        """Run the whole scenario; `schedule` is added to the section of that name."""
        settings = {"lr": lr, "seed": seed, "codec": "int8", "versions": 100000, "min_clients": 2}
        with self._running(settings, schedule) as (processes, network):
            lost = self.scenario.lost
            result = play(self.scenario, network, self._began, lambda: processes.kill(lost), say)
            processes.stop("coordinator")
        return replace(result, versions=self._versions())

    def first_version(self, lr: float, seed: int) -> Path:
        """Let a single site train one version without loss in the codec; return the run."""
        settings = {"lr": lr, "seed": seed, "codec": "fp32", "versions": 1, "min_clients": 1}
        with self._running(settings, "buffer_size = 1"):
            wait_until(lambda: self._version() >= 1, "the first version")
        return self.run_directory

    def _versions(self) -> tuple[tuple[float, str], ...]:
        run = read_run(self.run_directory)
        return tuple((each.at, str(run.version_directory(each.version))) for each in run.versions)

    @contextmanager
    def _running(
        self, settings: dict[str, Any], schedule: str
    ) -> Iterator[tuple[Processes, Network]]:
        """Run everything; the block begins when all sites have joined and tasks go out."""
        self.directory.mkdir(parents=True)
        rabbitmq = PrivateRabbitMQ(
            self.directory / "rabbitmq", free_port(), management=free_port(), free_bytes=16 << 20
        )
        redis = PrivateRedis(self.directory / "redis", free_port(), durable=True)
        network = Network()
        try:
            servers.start(rabbitmq)
            servers.start(redis)
            self._write_config(rabbitmq, redis, settings, schedule)
            with Processes(self.directory / "logs") as processes:
                self._start(processes, network, rabbitmq.url, redis.url)
                yield processes, network
        finally:
            network.close()
            servers.stop(rabbitmq, signal.SIGKILL)
            servers.stop(redis, signal.SIGKILL)

    def _start(
        self, processes: Processes, network: Network, broker_url: str, store_url: str
    ) -> None:
        fccl = (sys.executable, "-m", "cli")
        here, own = self.directory, {"PYTHONPATH": str(ROOT)}
        processes.start("coordinator", (*fccl, "coordinator", "--plain"), own, here)
        wait_until(lambda: self._version() == 0, "version 0")
        processes.run("operator", (*fccl, "pause"), own, here)
        for site in self.scenario.sites:
            broker, store = network.connect(broker_url), network.connect(store_url)
            invite = (*fccl, "invite", site.name, "--broker", broker, "--store", store)
            token = processes.run("operator", invite, own, here).strip()
            home = here / site.name
            home.mkdir()
            environment = own | {
                "FCCL_STATE": str(home / "state"),
                "FCCL_CACHE": str(home / "cache"),
                "FCCL_JOIN": token,
                "FCCL_WORKER__EVALUATION": "false",
                "HOSPITAL_STEP_S": str(self.scenario.scaled(site.step_s)),
            }
            program = (sys.executable, "-m", "benchmarks.hospital.worker_process", "worker")
            data = self._rows / f"{site.name}.jsonl"
            options = ("--data", data, "--base", self._base, "--device", "cpu")
            processes.start(site.name, (*program, *options), environment, home)
        count = len(self.scenario.sites)
        wait_until(lambda: self._query("SELECT COUNT(*) FROM member") == count, "all sites")
        self._began = time.time()
        processes.run("operator", (*fccl, "resume"), own, here)

    def _write_config(
        self,
        rabbitmq: PrivateRabbitMQ,
        redis: PrivateRedis,
        settings: dict[str, Any],
        schedule: str,
    ) -> None:
        text = CONFIG.format(
            name=NAME,
            broker=rabbitmq.url,
            management=rabbitmq.management_url,
            store=redis.url,
            base=self._base,
            labels=json.dumps(LABELS),
            max_length=MAX_LENGTH,
            batch=BATCH,
            clients=len(self.scenario.sites),
            lease=self.scenario.scaled(60.0),
            flush=self.scenario.scaled(120.0),
            deadline=self.scenario.scaled(3600.0),
            schedule=schedule,
            **settings,
        )
        (self.directory / "federation.toml").write_text(text, encoding="utf-8")

    def _version(self) -> int:
        return self._query("SELECT MAX(version) FROM version")

    def _query(self, query: str) -> int:
        """Return a number of the journal; -1 while there is none."""
        path = self.run_directory / "run.db"
        if not path.exists():
            return -1
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                found = db.execute(query).fetchone()[0]
        except sqlite3.OperationalError:  # being created
            return -1
        return -1 if found is None else int(found)

"""Federation under chaos: its processes, its servers, and the network, disks and clocks of each."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import clock, leftovers, process, witness
from tests.chaos.network import FAIR, Link
from tests.chaos.part import Part
from tests.chaos.plan import ChaosPlan
from tests.chaos.progress import Progress
from tests.chaos.small_disk import SmallDisk
from tests.support.processes import Command, Commands
from tests.support.servers import PrivateRabbitMQ, PrivateRedis

ROOT = Path(__file__).parents[2]
BROKER, STORE = "broker", "store"
RUNS, STATE, WITNESS = "runs", "state", "witness"
RUNS_MIB, STATE_MIB = 48, 24


@dataclass(frozen=True)
class Servers:
    """RabbitMQ and Redis that all federations of a campaign use, one after the other."""

    rabbitmq: PrivateRabbitMQ
    redis: PrivateRedis

    def start(self) -> None:
        """Make sure that both run."""
        for server in (self.rabbitmq, self.redis):
            server.resume()
            server.start()

    def close(self) -> None:
        self.rabbitmq.close()
        self.redis.close()


class Federation:
    """Processes of one plan, and what a fault needs to get at them."""

    def __init__(
        self, plan: ChaosPlan, directory: Path, servers: Servers, stack: ExitStack
    ) -> None:
        """Set everything up, and start nothing.

        Args:
            plan: The plan.
            directory: An empty directory.
            servers: Running servers.
            stack: Closes what is opened here.
        """
        self.plan, self.directory, self.servers = plan, directory, servers
        self.run = directory / RUNS / plan.name
        self.state, self.witness = directory / STATE, directory / WITNESS
        self.progress = Progress(self.run)
        self.executor = stack.enter_context(ThreadPoolExecutor())
        self.disks = {
            "coordinator": SmallDisk(directory / RUNS, RUNS_MIB),
            "worker": SmallDisk(self.state, STATE_MIB),
        }
        for disk in self.disks.values():
            stack.callback(disk.unmount)
            disk.mount()
        witness.make(self.witness)
        (directory / "federation.toml").write_text(plan.toml)
        environment = {"PYTHONPATH": str(ROOT), leftovers.VARIABLE: str(directory)}
        program = (sys.executable, "-m", process.__name__)
        self._commands = Commands(directory, environment, program, process.main)
        stack.callback(self._commands.close)
        self._links: dict[tuple[str, str], Link] = {}
        self.coordinator = self._part("coordinator", stack)
        self.workers = [self._part(f"worker-{i}", stack) for i in range(plan.workers)]

    @property
    def parts(self) -> list[Part]:
        return [self.coordinator, *self.workers]

    def tend(self) -> None:
        """Restart what has ended, and read the progress."""
        for part in self.parts:
            part.tend()
        self.progress.poll()

    def link(self, part: Part, server: str) -> Link:
        return self._links[part.name, server]

    def move_clock(self, part: Part, seconds: float) -> None:
        clock.set_offset(self._clock(part.name), seconds)

    def worker_id(self, part: Part) -> str:
        """Return the id that the newest process of a worker has; empty before it serves."""
        _, found, rest = part.newest.out.partition("\nworker ")
        return rest.partition(" ")[0] if found else ""

    def calm(self) -> None:
        """End the conditions that a fault may have left when it was cut short."""
        for link in self._links.values():
            link.weather = FAIR
        for disk in self.disks.values():
            disk.free()
        self.servers.start()

    def _part(self, name: str, stack: ExitStack) -> Part:
        for server, url in (
            (BROKER, self.servers.rabbitmq.url),
            (STORE, self.servers.redis.url),
        ):
            link = Link(url, seed=self.plan.seed)
            self._links[name, server] = link
            stack.callback(link.close)
        return Part(name, lambda: self._start(name))

    def _start(self, name: str) -> Command:
        variables = {
            "FCCL_BROKER__URL": self._links[name, BROKER].url,
            "FCCL_STORE__URL": self._links[name, STORE].url,
            clock.VARIABLE: str(self._clock(name)),
        }
        if name == "coordinator":
            return self._commands.script(name, "--plain", "--continue", **variables)
        variables[witness.VARIABLE] = str(self.witness)
        return self._commands.fork("worker", "--state", str(self.state), **variables)

    def _clock(self, name: str) -> Path:
        return self.directory / f"{name}.clock"

    def describe(self) -> str:
        """Return the state of everything, for a federation that does not end."""
        progress = self.progress
        head = (
            f"version {progress.version} of {self.plan.total_versions}, epoch {progress.epoch},"
            f" {len(progress.accepted)} updates accepted, {time.strftime('%H:%M:%S')}"
        )
        tasks = "unknown"
        if progress.version >= 0:
            query = "SELECT task_id, client_id, phase FROM task WHERE open"
            tasks = str(progress.rows(query))
        return "\n".join([head, f"open tasks: {tasks}", *(part.state() for part in self.parts)])


@contextmanager
def federation(plan: ChaosPlan, directory: Path, servers: Servers) -> Iterator[Federation]:
    """Yield a federation; kill its processes and remove its mounts at the end."""
    with ExitStack() as stack:
        yield Federation(plan, directory, servers, stack)

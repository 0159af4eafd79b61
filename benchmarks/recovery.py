"""Time that a federation needs to recover from a killed coordinator.

    python -m benchmarks.recovery --kills 7

A private RabbitMQ and Redis serve a run of `offline:gpt2-micro` with two workers. Its coordinator
is killed with SIGKILL at random moments, and at once started again with `--resume`. For each kill
the times are counted from the signal until

    epoch      the new coordinator has taken the run over (the epoch in the journal)
    status     viewers see its status (Redis)
    issued     it has issued a task
    accepted   it has accepted an update
    version    it has committed a version

The work in flight continues meanwhile, so `accepted` and `version` also contain what is left of
the training. `busy` is the processor time of the new coordinator until `version`; on a machine that
does other work, it is the figure to compare.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from cli.services import servers
from cli.services.ports import free_port
from cli.services.rabbitmq_server import PrivateRabbitMQ
from cli.services.redis_server import PrivateRedis
from common.protocol.wire import unpack
from common.store.store import Store, connect
from common.store.view import RunInfo

CONFIG = """\
[run]
name = "recovery"
keep_versions = 4
[model]
name = "offline:gpt2-micro"
max_length = 128
[model.lora]
r = 4
alpha = 8
[data]
rows = 90
clients = 3
[[phase]]
versions = 100000
local_steps = {steps}
batch_size = 4
[schedule]
concurrency = 3
buffer_size = 2
[samples]
prompts = 0
"""
MILESTONES = ("epoch", "status", "issued", "accepted", "version", "busy")
WORKERS = 2
LIMIT_S = 600.0
POLL_S = 0.02
BETWEEN_S = (4.0, 10.0)  # between two kills


class KilledRun:
    """One run whose coordinator is killed again and again."""

    def __init__(self, directory: Path, environment: dict[str, str], store: Store) -> None:
        self._directory, self._environment, self._store = directory, environment, store
        self._journal = directory / "runs" / "recovery" / "run.db"
        self._coordinator: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command of `fccl`, with its output in a file."""
        with (self._directory / f"{arguments[0]}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "cli", *arguments],
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def begin(self) -> None:
        """Start the first coordinator, and return when there is a version."""
        self._coordinator = self.start("coordinator", "--plain")
        self._wait(lambda: self._newest("SELECT MAX(version) FROM version") > 0)

    def kill(self) -> dict[str, float]:
        """Kill the coordinator and start it again; return the seconds until each milestone."""
        assert self._coordinator is not None
        epoch = self._newest("SELECT value FROM epoch")
        began = time.time()
        self._coordinator.send_signal(signal.SIGKILL)
        self._coordinator.wait()
        self._coordinator = self.start("coordinator", "--plain", "--resume")
        taken_over = self._wait(lambda: self._newest("SELECT value FROM epoch") > epoch)
        status = self._wait(lambda: self._updated_at() > taken_over)
        tables = {
            "issued": f"SELECT MIN(issued_at) FROM attempt WHERE epoch > {epoch}",
            "accepted": f"SELECT MIN(at) FROM accepted WHERE at > {taken_over}",
            "version": "SELECT MIN(json_extract(summary, '$.at')) FROM version"
            f" WHERE json_extract(summary, '$.at') > {taken_over}",
        }
        moments = {"epoch": taken_over, "status": status}
        for name, query in tables.items():
            self._wait(lambda query=query: self._newest(query) > 0)
            moments[name] = self._newest(query)
        figures = {name: moment - began for name, moment in moments.items()}
        return figures | {"busy": processor_seconds(self._coordinator.pid)}

    def end(self) -> None:
        if self._coordinator is not None:
            self._coordinator.kill()
            self._coordinator.wait()

    def _wait(self, condition: Callable[[], bool]) -> float:
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit(f"did not recover; see {self._directory}")
            time.sleep(POLL_S)
        return time.time()

    def _newest(self, query: str) -> float:
        """Return the number that a query gives; 0 if there is none yet."""
        if not self._journal.exists():
            return 0.0
        with closing(sqlite3.connect(f"file:{self._journal}?mode=ro", uri=True)) as db:
            row = db.execute(query).fetchone()
        return float(row[0] or 0.0)

    def _updated_at(self) -> float:
        run = self._store.get_run("recovery")
        info = None if run is None else self._store.get_info(run)
        return 0.0 if info is None else unpack(RunInfo, info)[0].updated_at


def processor_seconds(pid: int) -> float:
    """Return the user and system time of a running process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def killed_run(directory: Path, steps: int) -> Iterator[KilledRun]:
    """Yield a run that has made its first version, with its workers and servers."""
    with ExitStack() as stack:
        broker = PrivateRabbitMQ(directory / "rabbitmq", free_port())
        store = PrivateRedis(directory / "redis", free_port())
        for server in (store, broker):
            stack.callback(servers.stop, server, signal.SIGKILL)
            servers.start(server)
        (directory / "federation.toml").write_text(CONFIG.format(steps=steps))
        environment = os.environ | {"FCCL_BROKER__URL": broker.url, "FCCL_STORE__URL": store.url}
        run = KilledRun(directory, environment, connect(store.url))
        stack.callback(run.end)
        for _ in range(WORKERS):
            worker = run.start("worker")
            stack.callback(worker.wait)
            stack.callback(worker.kill)
        run.begin()
        yield run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="training steps of a task")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    rows: list[dict[str, float]] = []
    print("kill  " + "".join(f"{name:>10}" for name in MILESTONES), flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="fccl-recovery-") as folder,
        killed_run(Path(folder), arguments.steps) as run,
    ):
        for number in range(arguments.kills):
            time.sleep(moments.uniform(*BETWEEN_S))
            rows.append(run.kill())
            print(f"{number + 1:4}  " + _line(rows[-1]), flush=True)
    print("median" + _line({n: statistics.median(row[n] for row in rows) for n in MILESTONES}))


def _line(figures: dict[str, float]) -> str:
    return "".join(f"{figures[name]:10.1f}" for name in MILESTONES)


if __name__ == "__main__":
    main()

"""`python -m tests.soak`: run a federation of many clients, and print how its use grew.

The federation has real servers over TLS. A coordinator and one worker run from the first to the
last minute; other workers, clients and invited sites come and go every few seconds. At the end all
of them leave, the run is drained, and every accepted update must be in exactly one version.

    python -m tests.soak --minutes 60 --clients 50 --out soak.jsonl
    python -m tests.soak --table soak.jsonl

Exit code 1: something was left behind, lost or counted twice.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from common.store.store import Store, connect
from tests.soak.churn import Churn
from tests.soak.samples import Watched, sample, write
from tests.soak.slopes import growth, table
from tests.support import processes
from tests.support.federations import check_applied_once, planned
from tests.support.inviting_federation import TLS_SECTIONS, InvitingFederation
from tests.support.processes import Command, eventually
from tests.support.tls_servers import TlsServers, start_tls_servers

SAMPLE_S = 10.0
START_S = 600.0
LEAVES_BEHIND = ("queues", "exchanges", "connections", "channels", "users", "files", "threads")
"""Counts that must return to what they were when nobody had come yet."""

PLAN = """\
[run]
name = "small"
[model]
name = "offline:gpt2-micro"
max_length = 128
[model.lora]
r = 4
alpha = 8
[data]
rows = {rows}
clients = {clients}
[[phase]]
versions = 1000000
local_steps = 4
batch_size = 4
lr_schedule = "constant"
lr = 1e-4
[schedule]
concurrency = 6
buffer_size = 3
lease_s = 10.0
flush_s = 20.0
"""


def main() -> int:
    options = _options()
    if options.table:
        print(table(growth(_read(options.table))))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    processes.warm()
    with (
        tempfile.TemporaryDirectory(prefix="fccl-soak-") as folder,
        start_tls_servers(Path(folder)) as servers,
    ):
        text = PLAN.format(rows=options.clients * 30, clients=options.clients)
        text += TLS_SECTIONS.format(ca=servers.ca, management=servers.management)
        cache = Path(folder) / "cache"
        urls = servers.amqps, servers.rediss
        with planned(Path(folder), cache, *urls, text, servers.store) as found:
            federation = InvitingFederation(Path(folder), found.place, servers.store)
            left = _soak(federation, servers, Path(folder), options)
    for line in left:
        print(f"left behind: {line}", file=sys.stderr)
    print(table(growth(_read(options.out))))
    return 1 if left else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Soak a federation.")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause", type=float, default=3.0, help="seconds between two changes")
    parser.add_argument("--out", type=Path, default=Path("soak.jsonl"), help="file of samples")
    parser.add_argument("--table", type=Path, help="only print the table of such a file")
    return parser.parse_args()


def _soak(
    federation: InvitingFederation, servers: TlsServers, folder: Path, options: argparse.Namespace
) -> list[str]:
    """Run the federation for its time; return a sentence for everything that was left behind."""
    store = connect(servers.store)
    coordinator = federation.script("coordinator", "--plain")
    federation.started.append(coordinator)
    steady = federation.script("worker")
    federation.started.append(steady)

    def begun() -> bool:
        _check_running(coordinator, steady)
        return federation.version() >= 2

    eventually("version 2", begun, START_S)
    watched = _watched(coordinator, steady, servers, store, federation.run, folder)
    started = time.monotonic()
    before = sample(watched, started)
    churn = Churn(federation, store, folder, options.seed)
    with closing(churn), options.out.open("w", encoding="utf-8") as file:
        sampled = 0.0
        while (elapsed := time.monotonic() - started) < options.minutes * 60:
            churn.step()
            _check_running(coordinator, steady)
            if elapsed >= sampled:
                write(file, sample(watched, started) | {"versions": float(federation.version())})
                sampled = elapsed + SAMPLE_S
            time.sleep(options.pause)
        churn.settle()
    print(f"{federation.version()} versions; {json.dumps(churn.counts)}")
    after = _settled(lambda: sample(watched, started), before)
    left = [
        f"{name}: {before[name]:g} before, {after[name]:g} after"
        for name in before
        if name.endswith(LEAVES_BEHIND) and after[name] > before[name]
    ]
    _drain(federation, coordinator, steady)
    check_applied_once(federation)
    return left


def _watched(
    coordinator: Command,
    steady: Command,
    servers: TlsServers,
    store: Store,
    run: Path,
    folder: Path,
) -> Watched:
    return Watched(
        {"coordinator": coordinator.pid, "worker": steady.pid},
        {
            "run directory": run,
            "journal": run / "run.db",
            "versions": run / "versions",
            "spool": run / "spool",
            "state of workers": run.parent / ".workers",
            "RabbitMQ": folder / "rabbitmq",
            "Redis": folder / "redis",
        },
        servers.management,
        store,
    )


def _check_running(*processes: Command) -> None:
    for process in processes:
        assert process.code is None, f"it has ended:\n{process.out}\n{process.err}"


def _settled(measure: Callable[[], dict[str, float]], before: dict[str, float]) -> dict[str, float]:
    """Measure until nothing counts more than before, for two minutes at most."""
    deadline = time.monotonic() + 120.0
    while True:
        values = measure()
        grown = [n for n in before if n.endswith(LEAVES_BEHIND) and values[n] > before[n]]
        if not grown or time.monotonic() > deadline:
            return values
        time.sleep(5.0)


def _drain(federation: InvitingFederation, coordinator: Command, steady: Command) -> None:
    federation.order("drain", "--yes")
    coordinator.end(300.0)
    if steady.code is None:
        steady.signal(signal.SIGTERM)
    steady.end()


def _read(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    sys.exit(main())

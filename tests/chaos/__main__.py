"""Command `python -m tests.chaos`: run seeded federations under chaos, or print the table."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common.paths import cache_dir
from tests.chaos import table
from tests.chaos.campaign import run_seed
from tests.chaos.federation import ROOT, Servers
from tests.chaos.plan import KINDS, draw
from tests.support import processes
from tests.support.servers import PrivateRabbitMQ, PrivateRedis

LEAST_MINUTES = 4.0
"""No federation begins with less time left."""


def main() -> int:
    arguments = _parse()
    if arguments.show:
        print(table.summarise(table.read(arguments.show)))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    processes.restore_interrupts()
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("interrupted")
        return 130


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", default="1-1000", help="such as 7 or 1-6 [1-1000]")
    parser.add_argument("--minutes", type=float, default=40.0, help="time for all of them [40]")
    parser.add_argument("--faults", type=int, default=40, help="faults of each federation [40]")
    parser.add_argument(
        "--kinds", default="", help=f"only these, separated by commas: {list(KINDS)}"
    )
    parser.add_argument("--table", type=Path, help="append the faults to this file (JSON lines)")
    parser.add_argument("--keep", type=Path, help="folder of the federations [a temporary one]")
    parser.add_argument("--show", type=Path, nargs="+", help="only print the table of these files")
    return parser.parse_args()


def _run(arguments: argparse.Namespace) -> int:
    first, _, last = arguments.seeds.partition("-")
    kinds = [kind for kind in arguments.kinds.split(",") if kind]
    commit = _commit()
    deadline = time.monotonic() + 60 * arguments.minutes
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="fccl-chaos-"))
    servers = Servers(PrivateRabbitMQ(), PrivateRedis())
    failed: list[int] = []
    try:
        servers.start()
        processes.warm()
        _make_base_model()
        for seed in range(int(first), int(last or first) + 1):
            if deadline - time.monotonic() < 60 * LEAST_MINUTES and seed > int(first):
                print(f"the time is up before seed {seed}")
                break
            plan = draw(seed, arguments.faults, kinds)
            print(
                f"seed {seed}: {plan.workers} workers, {plan.total_versions} versions", flush=True
            )
            directory = folder / f"seed-{seed}-{time.time():.0f}"
            faults, record = run_seed(plan, directory, servers, commit, _say)
            if arguments.table:
                table.append(arguments.table, [*faults, record])
            if record.problems:
                failed.append(seed)
                repeat = f"--seeds {seed} --faults {arguments.faults}"
                print(f"seed {seed} FAILED; repeat: python -m tests.chaos {repeat}; {directory}")
            else:
                print(
                    f"seed {seed} passed: {record.faults} faults, {record.updates} updates,"
                    f" {record.versions} versions, {record.seconds:.0f} s"
                )
    finally:
        servers.close()
    return 1 if failed else 0


def _make_base_model() -> None:
    """Make the base model in the cache of this user, so that federations find it."""
    from learning.models import base

    base.resolve("offline:gpt2-micro", None, cache_dir(), lambda message, fraction: None)


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def _say(text: str) -> None:
    print(f"  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

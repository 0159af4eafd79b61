"""Time per update and memory of the coordinator's core, by number of clients.

    python -m benchmarks.core_scale --clients 1000 10000 100000 --concurrency 1000 --buffer 100

The pure core is stepped in virtual time, with updates that nobody has trained: there is no journal,
broker or store. Durations of tasks are lognormal; a heartbeat is read every `--pulse` virtual
seconds. Each size runs in a process of its own. Processor time and that process's peak memory are
shown. `--sites` spreads the clients over sites with a worker each, instead of one site that has as
many workers as there are tasks at a time.
"""

from __future__ import annotations

import argparse
import heapq
import random
import resource
import subprocess
import sys
import time
from types import MappingProxyType

from common.config.config import AggregationConfig, PhaseConfig, ScheduleConfig
from common.protocol.updates import ContributionStats
from coordinator.core import machine
from coordinator.core.events import (
    AcceptUpdate,
    CommitVersion,
    CoordinatorEvent,
    HeartbeatsRead,
    IssueTask,
    UpdateArrived,
    WorkerSignal,
)
from coordinator.core.state import Client, CoordinatorState, OpenTask, Plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--concurrency", type=int, default=1_000)
    parser.add_argument("--buffer", type=int, default=100)
    parser.add_argument("--updates", type=int, default=20_000)
    parser.add_argument("--pulse", type=float, default=10.0)
    parser.add_argument("--sites", type=int, default=1)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _run(options)
        return
    print(f"{'clients':>9} {'updates':>8} {'versions':>8} {'us/update':>10} {'slowest ms':>10}"
          f" {'start ms':>9} {'peak MB':>8}")  # fmt: skip
    for clients in options.clients:
        command = [sys.executable, "-m", "benchmarks.core_scale", *sys.argv[1:], "--child"]
        subprocess.run([*command, "--clients", str(clients)], check=True)


def _run(options: argparse.Namespace) -> None:
    (count,) = options.clients
    federation = _Federation(_plan(count, options), options)
    begun = time.process_time()
    federation.pulse()
    started = time.process_time() - begun
    begun = time.process_time()
    while federation.accepted < options.updates:
        federation.advance()
    seconds = time.process_time() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{count:>9} {federation.accepted:>8} {federation.state.version:>8}"
          f" {1e6 * seconds / federation.accepted:>10.0f} {1e3 * federation.slowest:>10.1f}"
          f" {1e3 * started:>9.0f} {peak:>8.0f}", flush=True)  # fmt: skip


def _plan(count: int, options: argparse.Namespace) -> Plan:
    clients = {
        f"c{i}": Client(f"c{i}", f"s{i % options.sites}", {"sft": 50 + i % 100})
        for i in range(count)
    }
    schedule = ScheduleConfig(
        concurrency=options.concurrency, buffer_size=options.buffer, lease_s=60.0
    )
    phase = PhaseConfig(versions=10**6)
    return Plan((phase,), schedule, AggregationConfig(), MappingProxyType(clients))


class _Federation:
    """Clients that answer each task after a random time."""

    def __init__(self, plan: Plan, options: argparse.Namespace) -> None:
        self.plan, self.state = plan, CoordinatorState()
        self.accepted, self.slowest, self._now = 0, 0.0, 0.0
        self._pulse_s, self._next_pulse = options.pulse, 0.0
        workers = options.concurrency if options.sites == 1 else 1
        self._signals = tuple(
            WorkerSignal(f"s{i}", True, None) for i in range(options.sites) for _ in range(workers)
        )
        self._random = random.Random(0)
        self._heap: list[tuple[float, str, OpenTask, str]] = []

    def pulse(self) -> None:
        self._next_pulse = self._now + self._pulse_s
        self._feed(HeartbeatsRead(self._signals))

    def advance(self) -> None:
        """Deliver the next update, and heartbeats before it as far as they are due."""
        when, _, task, site = heapq.heappop(self._heap)
        while self._next_pulse < when:
            self._now = self._next_pulse
            self.pulse()
        self._now = when
        self._feed(_update(task, site, self._random.uniform(1.0, 3.0)))

    def _feed(self, event: CoordinatorEvent) -> None:
        begun = time.process_time()
        done = machine.step(self.plan, self.state, event, self._now)
        self.slowest = max(self.slowest, time.process_time() - begun)
        self.state = done.state
        for action in done.actions:
            match action:
                case IssueTask(task=task, site=site):
                    duration = self._random.lognormvariate(3.0, 1.0)
                    heapq.heappush(self._heap, (self._now + duration, task.task_id, task, site))
                case AcceptUpdate():
                    self.accepted += 1
                case CommitVersion():
                    pass


def _update(task: OpenTask, site: str, loss: float) -> UpdateArrived:
    stats = ContributionStats(
        num_samples=100, num_tokens=1000, steps=10, avg_loss=loss, loss_before=loss + 0.1,
        loss_after=loss, train_seconds=1.0, delta_norm=1.0,
    )  # fmt: skip
    return UpdateArrived(
        task_id=task.task_id, attempt=task.attempt, client_id=task.client_id, worker_id="w",
        site=site, phase=task.phase, base_version=task.base_version, stats=stats, norm=1.0,
        problem=None, nbytes=100, upload=task.task_id,
    )  # fmt: skip


if __name__ == "__main__":
    main()

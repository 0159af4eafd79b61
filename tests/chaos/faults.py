"""Faults: how each kind is injected and ended, and which progress shows that it is over.

A fault is a generator. It yields what to wait for, a number of seconds or a condition, and returns
the `Recovery` that the campaign then waits for. If the run ends first, the generator is closed.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from tests.chaos.federation import BROKER, STORE, Federation
from tests.chaos.network import FAIR, Weather
from tests.chaos.part import Part
from tests.chaos.plan import Fault
from tests.chaos.progress import Acceptance
from tests.chaos.repeats import repeat_updates
from tests.support.processes import Command
from tests.support.servers import PrivateRedis

Condition = Callable[[], bool]
TAKEOVER_S = 20.0
"""How long a coordinator stays frozen at most while another one takes over."""


@dataclass(frozen=True)
class Recovery:
    """When a fault ended (monotonic), and the first accepted update that shows it is over."""

    since: float
    shows: Callable[[Acceptance], bool]


Injection = Generator[float | Condition, None, Recovery | None]
Inject = Callable[[Federation, Fault], Injection]


def target(federation: Federation, fault: Fault) -> str:
    """Return what a fault hits; faults of one target follow one another."""
    kind = fault.kind
    if kind.startswith("worker's disk"):
        return "worker's disk"
    if kind.startswith("worker"):
        return _worker(federation, fault).name
    if kind.startswith("network"):
        part, server = _link(federation, fault)
        return f"{part.name} – {server}"
    for name in ("RabbitMQ", "Redis", "updates"):
        if kind.startswith(name):
            return name
    return "coordinator's disk" if "disk" in kind else "coordinator"


# Processes


def coordinator_killed(federation: Federation, fault: Fault) -> Injection:
    return _end_coordinator(federation, fault, signal.SIGKILL, 1)


def coordinator_terminated(federation: Federation, fault: Fault) -> Injection:
    return _end_coordinator(federation, fault, signal.SIGTERM, 1)


def two_coordinators(federation: Federation, fault: Fault) -> Injection:
    return _end_coordinator(federation, fault, signal.SIGKILL, 2)


def _end_coordinator(
    federation: Federation, fault: Fault, number: signal.Signals, count: int
) -> Injection:
    coordinator, epoch, since = federation.coordinator, federation.progress.epoch, time.monotonic()
    yield from _end(coordinator, fault, number)
    for _ in range(count - 1):
        coordinator.add()
    return Recovery(since, lambda a: a.epoch > epoch)


def coordinator_replaced(federation: Federation, fault: Fault) -> Injection:
    """Freeze a coordinator, start another one beside it, and let the first one wake."""
    coordinator, epoch, since = federation.coordinator, federation.progress.epoch, time.monotonic()
    frozen = coordinator.running
    coordinator.signal(signal.SIGSTOP)
    try:
        yield fault.delay_s
        coordinator.add()
        yield lambda: federation.progress.epoch > epoch or time.monotonic() > since + TAKEOVER_S
        yield fault.seconds
    finally:
        for command in frozen:
            _signal(command, signal.SIGCONT)
    # It stays if the other one could not take over.
    deadline = time.monotonic() + TAKEOVER_S
    yield lambda: time.monotonic() > deadline or all(c.code is not None for c in frozen)
    return Recovery(since, lambda a: a.epoch > epoch)


def coordinator_frozen(federation: Federation, fault: Fault) -> Injection:
    yield from _freeze(federation.coordinator, fault)
    return Recovery(time.monotonic(), lambda a: True)


def worker_killed(federation: Federation, fault: Fault) -> Injection:
    return _end_worker(federation, fault, signal.SIGKILL)


def worker_terminated(federation: Federation, fault: Fault) -> Injection:
    return _end_worker(federation, fault, signal.SIGTERM)


def _end_worker(federation: Federation, fault: Fault, number: signal.Signals) -> Injection:
    worker = _worker(federation, fault)
    yield from _end(worker, fault, number)
    return Recovery(time.monotonic(), _by(federation, worker))


def _end(
    part: Part, fault: Fault, number: signal.Signals
) -> Generator[float | Condition, None, None]:
    """End a part, and wait until it was started again."""
    ended = part.running
    part.expect_end(fault.delay_s)
    part.signal(number)
    yield lambda: all(command.code is not None for command in ended) and bool(part.running)


def worker_frozen(federation: Federation, fault: Fault) -> Injection:
    worker = _worker(federation, fault)
    yield from _freeze(worker, fault)
    return Recovery(time.monotonic(), _by(federation, worker))


def _freeze(part: Part, fault: Fault) -> Generator[float, None, None]:
    frozen = part.running
    part.signal(signal.SIGSTOP)
    try:
        yield fault.seconds
    finally:
        for command in frozen:
            _signal(command, signal.SIGCONT)


# Servers


def rabbitmq_killed(federation: Federation, fault: Fault) -> Injection:
    return _down(federation, fault, federation.servers.rabbitmq.kill)


def rabbitmq_restarted(federation: Federation, fault: Fault) -> Injection:
    return _down(federation, fault, federation.servers.rabbitmq.stop)


def _down(federation: Federation, fault: Fault, end: Callable[[], None]) -> Injection:
    yield from _background(federation, end)
    yield fault.delay_s
    yield from _background(federation, federation.servers.rabbitmq.start)
    return Recovery(time.monotonic(), lambda a: True)


def rabbitmq_frozen(federation: Federation, fault: Fault) -> Injection:
    federation.servers.rabbitmq.pause()
    try:
        yield fault.seconds
    finally:
        federation.servers.rabbitmq.resume()
    return Recovery(time.monotonic(), lambda a: True)


def redis_killed(federation: Federation, fault: Fault) -> Injection:
    return _redis_down(federation, fault, lambda redis: redis.kill())


def redis_restarted(federation: Federation, fault: Fault) -> Injection:
    return _redis_down(federation, fault, lambda redis: redis.stop())


def redis_emptied(federation: Federation, fault: Fault) -> Injection:
    return _redis_down(federation, fault, PrivateRedis.empty)


def _redis_down(
    federation: Federation, fault: Fault, end: Callable[[PrivateRedis], None]
) -> Injection:
    redis = federation.servers.redis
    yield from _background(federation, lambda: end(redis))
    yield fault.seconds
    yield from _background(federation, redis.start)
    return _with_new_task()


def redis_frozen(federation: Federation, fault: Fault) -> Injection:
    federation.servers.redis.pause()
    try:
        yield fault.seconds
    finally:
        federation.servers.redis.resume()
    return _with_new_task()


# Messages


def updates_repeated(federation: Federation, fault: Fault) -> Injection:
    source = random.Random(fault.seed)
    yield from _background(federation, lambda: repeat_updates(federation, source))
    return None


# Network


def network_slow(federation: Federation, fault: Fault) -> Injection:
    source = random.Random(fault.seed)
    weather = Weather(source.uniform(0.02, 0.3), source.choice((0.0, 20_000.0, 100_000.0)))
    return _weather(federation, fault, weather)


def network_lossy(federation: Federation, fault: Fault) -> Injection:
    return _weather(federation, fault, Weather(loss=random.Random(fault.seed).uniform(0.02, 0.3)))


def network_cut(federation: Federation, fault: Fault) -> Injection:
    """Tear all connections within a frame, and refuse to carry any for a while."""
    return _weather(federation, fault, Weather(loss=1.0))


def network_blackhole(federation: Federation, fault: Fault) -> Injection:
    return _weather(federation, fault, Weather(blackhole=True))


def _weather(federation: Federation, fault: Fault, weather: Weather) -> Injection:
    part, server = _link(federation, fault)
    link = federation.link(part, server)
    link.weather = weather
    try:
        yield fault.seconds
    finally:
        link.weather = FAIR
    if part is not federation.coordinator:
        return Recovery(time.monotonic(), _by(federation, part))
    return _with_new_task() if server == STORE else Recovery(time.monotonic(), lambda a: True)


# Disks


def coordinators_disk_full(federation: Federation, fault: Fault) -> Injection:
    yield from _fill(federation, fault, "coordinator")
    return Recovery(time.monotonic(), lambda a: True)


def workers_disk_full(federation: Federation, fault: Fault) -> Injection:
    yield from _fill(federation, fault, "worker")
    return _with_new_task()


def _fill(
    federation: Federation, fault: Fault, owner: str
) -> Generator[float | Condition, None, None]:
    disk = federation.disks[owner]
    yield from _background(federation, disk.fill)
    try:
        yield fault.seconds
    finally:
        disk.free()


# Clocks


def coordinators_clock_moved(federation: Federation, fault: Fault) -> Injection:
    _move_clock(federation, federation.coordinator, fault)
    yield 0.1
    return _with_new_task()


def workers_clock_moved(federation: Federation, fault: Fault) -> Injection:
    worker = _worker(federation, fault)
    _move_clock(federation, worker, fault)
    yield 0.1
    return Recovery(time.monotonic(), _by(federation, worker))


def _move_clock(federation: Federation, part: Part, fault: Fault) -> None:
    source = random.Random(fault.seed)
    sign, size = source.choice((-1, 1)), source.choice((2.0, 30.0, 600.0, 7200.0, 86400.0))
    federation.move_clock(part, sign * size)


def _worker(federation: Federation, fault: Fault) -> Part:
    return federation.workers[int(fault.choice * len(federation.workers))]


def _link(federation: Federation, fault: Fault) -> tuple[Part, str]:
    pairs = [(part, server) for part in federation.parts for server in (BROKER, STORE)]
    return pairs[int(fault.choice * len(pairs))]


def _by(federation: Federation, worker: Part) -> Callable[[Acceptance], bool]:
    return lambda a: a.worker_id == federation.worker_id(worker)


def _with_new_task() -> Recovery:
    """Wait for an update whose task was issued after the fault: it needed the store."""
    now = time.monotonic()
    return Recovery(now, lambda a: a.issued_at > now)


def _signal(command: Command, number: signal.Signals) -> None:
    if command.code is None:
        command.signal(number)


def _background(
    federation: Federation, work: Callable[[], object]
) -> Generator[Condition, None, None]:
    """Do what blocks in another thread; raise what it raises."""
    future = federation.executor.submit(work)
    yield future.done
    future.result()


INJECTIONS: dict[str, Inject] = {
    "coordinator killed": coordinator_killed,
    "coordinator frozen": coordinator_frozen,
    "coordinator terminated": coordinator_terminated,
    "coordinator replaced while frozen": coordinator_replaced,
    "two coordinators at once": two_coordinators,
    "worker killed": worker_killed,
    "worker frozen": worker_frozen,
    "worker terminated": worker_terminated,
    "RabbitMQ killed": rabbitmq_killed,
    "RabbitMQ frozen": rabbitmq_frozen,
    "RabbitMQ restarted": rabbitmq_restarted,
    "Redis killed": redis_killed,
    "Redis frozen": redis_frozen,
    "Redis restarted": redis_restarted,
    "Redis emptied": redis_emptied,
    "updates repeated": updates_repeated,
    "network slow": network_slow,
    "network lossy": network_lossy,
    "network cut": network_cut,
    "network blackhole": network_blackhole,
    "coordinator's disk full": coordinators_disk_full,
    "worker's disk full": workers_disk_full,
    "coordinator's clock moved": coordinators_clock_moved,
    "worker's clock moved": workers_clock_moved,
}

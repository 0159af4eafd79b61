"""Random plans, workers and networks for property tests over the virtual federation."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from coordinator.core.events import UpdateArrived
from coordinator.core.state import Client, Plan
from tests.support.virtual_federation import Worker, plan


class Faults:
    """A network that loses, doubles and delays, from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def __call__(self, _: UpdateArrived) -> Sequence[float]:
        copies = self._random.choice([0, 1, 1, 1, 2, 3])
        return [self._random.choice([0.1, 1.0, 30.0, 200.0]) for _ in range(copies)]


def random_plan(random: Random) -> Plan:
    sync = random.random() < 0.4
    sites = ["near", "far"]
    concurrency = random.randint(1, 5)
    clients = {f"c{i}": Client(f"c{i}", random.choice(sites), {"sft": 50}) for i in range(1, 7)}
    return plan(
        clients,
        versions=[random.randint(1, 4) for _ in range(random.randint(1, 2))],
        concurrency=concurrency,
        buffer_size=random.randint(1, concurrency),
        reissue="commit" if sync else "immediate",
        quorum=1 if sync else None,
        round_deadline_s=200.0,
        flush_s=random.choice([20.0, 120.0]),
        lease_s=random.choice([10.0, 60.0]),
        task_deadline_s=900.0,
    )


def random_workers(random: Random) -> list[Worker]:
    result = []
    for i in range(4):
        away, at = [], 0.0
        for _ in range(random.randint(0, 3)):
            at += random.uniform(1, 100)
            away.append((at, at := at + random.uniform(1, 200)))
        seconds = random.choice([1.0, 7.0, 30.0, 100.0])
        result.append(Worker(f"w{i}", seconds, ("near", "far")[i % 2], away))
    return result

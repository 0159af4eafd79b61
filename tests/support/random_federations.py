"""Random plans, workers and networks for property tests over the virtual federation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from common.config.config import AggregationConfig
from common.evaluation.sums import EvaluationSums
from common.protocol.commands import ACTIONS_WITH_TARGET, Command, CommandName
from common.protocol.fields import RowKind
from coordinator.core.events import (
    CommandReceived,
    CoordinatorEvent,
    EnrolmentRequested,
    EvaluationArrived,
    SiteRevoked,
    UpdateArrived,
)
from coordinator.core.state import Client, EvaluationPlan, Plan
from tests.support.virtual_federation import (
    Federation,
    Message,
    Worker,
    make_plan,
    make_result,
    make_stats,
    make_update,
)

COMMANDS: tuple[CommandName, ...] = (
    "pause",
    "resume",
    "kick",
    "pardon",
    "reissue",
    "min-clients",
    "evaluate",
)
SOURCES = ("train", "server", "federated", "cosine")


class Faults:
    """Network that loses, duplicates and delays answers, as a seed decides."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def __call__(self, _: Message) -> Sequence[float]:
        copies = self._random.choice([0, 1, 1, 1, 2, 3])
        return [self._random.choice([0.1, 1.0, 30.0, 200.0]) for _ in range(copies)]


def random_plan(random: Random) -> Plan:
    sync = random.random() < 0.4
    sites = ["near", "far"]
    concurrency = random.randint(1, 5)
    clients = {f"c{i}": Client(f"c{i}", random.choice(sites), {"sft": 50}) for i in range(1, 7)}
    evaluation = EvaluationPlan(
        federated=random.random() < 0.7, every=random.choice([None, 1, 2]), deadline_s=400.0
    )
    aggregation = AggregationConfig(
        contribution_source=random.choice(SOURCES),
        score_deadline_s=random.choice([0.5, 20.0, 60.0]),
    )
    return make_plan(
        clients,
        aggregation=aggregation,
        evaluation=evaluation,
        min_clients=random.randint(1, 3),
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
        declines = random.random() < 0.15
        result.append(Worker(f"w{i}", seconds, ("near", "far")[i % 2], away, declines=declines))
    return result


def random_interventions(fed: Federation, random: Random) -> None:
    """Let operators command, sites join and leave, and somebody send flawed updates."""
    targets = (*fed.plan.clients, "far.ward")
    for number in range(12):
        action = random.choice(COMMANDS)
        target = random.choice(targets) if action in ACTIONS_WITH_TARGET else ""
        if action == "min-clients":
            target = random.choice(["1", "2", "0", "many"])
        elif action == "evaluate":
            target = random.choice(["", "0", "1", "none"])
        command = Command(command_id=f"k{number}", action=action, target=target, by="ann")
        _feed_at(fed, random.uniform(0, 400), lambda command=command: CommandReceived(command))
    for at in (random.uniform(0, 50), random.uniform(50, 100)):
        rows: dict[RowKind, int] = {"sft": random.randint(0, 90)}
        shares = random.random() < 0.5
        request = EnrolmentRequested(
            "far.ward", "far", rows, max_clients=1, max_rows=60, shares_updates=shares
        )
        _feed_at(fed, at, lambda request=request: request)
    if random.random() < 0.5:
        _feed_at(fed, random.uniform(100, 400), lambda: SiteRevoked("far"))
    for _ in range(10):
        _feed_at(fed, random.uniform(0, 400), lambda: _flawed_update(fed, random))
        _feed_at(fed, random.uniform(0, 400), lambda: _flawed_result(fed, random))


def _feed_at(fed: Federation, when: float, make: Callable[[], CoordinatorEvent | None]) -> None:
    def feed() -> None:
        event = make()
        if event is not None:
            fed.feed(event)

    fed.at(when, feed)


def _flawed_update(fed: Federation, random: Random) -> UpdateArrived | None:
    """Return an update of some open task that admission rejects, or clips."""
    if not fed.state.tasks:
        return None
    task = random.choice(list(fed.state.tasks.values()))
    site = fed.state.members(fed.plan)[task.client_id].site
    flaw: dict[str, object] = random.choice(
        [{"phase": 9}, {"stats": make_stats(samples=0)}, {"norm": 1e9}, {"norm": 3.0}]
    )
    return make_update(task, site, **flaw)


def _flawed_result(fed: Federation, random: Random) -> EvaluationArrived | None:
    """Return an answer to some open evaluation that admission rejects."""
    if not fed.state.evaluations:
        return None
    evaluation = random.choice(list(fed.state.evaluations.values()))
    site = fed.state.members(fed.plan)[evaluation.client_id].site
    flaw: dict[str, object] = random.choice(
        [{"version": 99}, {"attempt": 9}, {"sums": EvaluationSums(rows=900, loss=1.0, tokens=900)}]
    )
    return make_result(evaluation, site=site, **flaw)

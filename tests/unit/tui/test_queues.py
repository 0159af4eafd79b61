"""Queue depths and rates by site."""

from __future__ import annotations

import pytest

from broker.protocol import Site, Topology
from tests.support.tui.builders import client, queue
from tui.data import queues
from tui.data.queues import QueueKind, QueueName, QueueSample


def sample(at: float, depth: int = 0, issued: int = 0) -> QueueSample:
    row = client("a", "s", issued=issued)
    return queues.take_sample(at, [queue("tasks.s", depth)], [row])


def test_the_names_of_a_runs_queues_are_understood() -> None:
    topology = Topology("r", (Site("s-1"),))
    site = topology.sites[0]
    assert queues.parse_queue_name(topology.task_queue(site)) == QueueName(QueueKind.TASKS, "s-1")
    assert queues.parse_queue_name(topology.update_queue(site)) == QueueName(
        QueueKind.UPDATES, "s-1"
    )
    assert queues.parse_queue_name(topology.dead_queue) == QueueName(QueueKind.DEAD, "")


@pytest.mark.parametrize("name", ["celery", "fccl.r.other.x", "fccl.r"])
def test_other_queue_names_belong_to_no_site(name: str) -> None:
    assert queues.parse_queue_name(name) == QueueName(QueueKind.OTHER, name)


def test_rates_are_differences_over_time() -> None:
    samples = (sample(1.0, 10, 0), sample(3.0, 4, 8))
    (site,) = queues.queues_by_site([queue("tasks.s", 4)], samples)
    assert (site.tasks_growth, site.issued, site.applied) == (-3.0, 4.0, 0.0)
    assert site.updates is None and site.updates_growth is None
    assert queues.queue_growth(samples[:1], "fccl.r.tasks.s") is None


def test_a_site_counts_all_its_clients() -> None:
    rows = [client("a", "s", issued=2), client("b", "s", issued=3), client("c", "t", issued=5)]
    assert queues.take_sample(0.0, [], rows).issued == {"s": 5, "t": 5}


def test_of_the_samples_older_than_the_window_one_is_kept() -> None:
    kept: tuple[QueueSample, ...] = ()
    for second in range(100):
        kept = queues.add_sample(kept, sample(float(second)), window_s=10.0)
    assert [each.at for each in kept] == [float(s) for s in range(89, 100)]
    assert queues.add_sample(kept, sample(99.0)) == kept


def test_the_queue_of_dead_letters_is_found() -> None:
    assert queues.dead_letter_queue([queue("tasks.s"), queue("dead", 2)]) == queue("dead", 2)
    assert queues.dead_letter_queue([]) is None

"""What the coordinator's metrics count, on real runs of the service and decisions of the core."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from broker.chunks import parse_chunk
from broker.protocol import LOCAL, Message
from common.operations.health import Health
from coordinator.ingest import ingest
from coordinator.metrics import CoordinatorMetrics
from tests.unit.coordinator.test_service import CHUNK, World


class Observed:
    """A run with its metrics."""

    def __init__(self, directory: Path) -> None:
        self.world = World(directory)
        self.registry = CollectorRegistry()
        self.health = Health(["broker", "store", "run"], 10.0)
        self.opened = self.world.open()
        self.world.metrics = CoordinatorMetrics(self.registry, self.health, self.opened)

    def serve(self) -> None:
        self.world.service(self.opened).serve(self.world.stop)

    def figure(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def observed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Observed:
    monkeypatch.setattr(ingest, "parse_chunk", partial(parse_chunk, chunk_bytes=CHUNK))
    return Observed(tmp_path)


def test_a_run_is_counted_as_it_went(observed: Observed) -> None:
    observed.serve()
    figure = observed.figure
    assert figure("fccl_updates_accepted_total", site="local") == 6
    assert figure("fccl_version") == figure("fccl_versions_planned") == 3
    assert figure("fccl_commit_seconds_count") == 3
    assert figure("fccl_update_staleness_count") == 6
    assert figure("fccl_epoch") == 1
    assert figure("fccl_buffer_updates") == figure("fccl_open_tasks") == 0
    assert figure("fccl_dead_letters_total") == 0
    sizes = sum(u.nbytes for s in observed.opened.journal.versions() for u in s.updates)
    assert figure("fccl_update_bytes_total", site="local") == sizes
    assert figure("fccl_train_loss") == observed.opened.journal.versions()[-1].train_loss
    issued = figure("fccl_tasks_issued_total", site="local")
    assert issued == observed.opened.journal.rows("SELECT COUNT(*) FROM attempt")[0][0]


def test_a_run_in_progress_shows_its_queues_and_workers(observed: Observed) -> None:
    seen: list[tuple[float | None, ...]] = []

    def look() -> None:
        figures = (
            observed.figure("fccl_workers", site="local"),
            observed.figure("fccl_queue_messages", queue="tasks", site="local"),
            observed.figure("fccl_queue_messages", queue="dead", site=""),
        )
        seen.append(figures)

    observed.world.each_turn = look
    observed.serve()
    assert (1.0, 0.0, 0.0) in seen
    assert observed.health.is_working("run")
    assert observed.health.is_working("store")
    assert not observed.health.is_working("broker")  # nobody has said so


def test_a_store_that_is_lost_makes_the_coordinator_unready(observed: Observed) -> None:
    seen: list[float | None] = []

    def look() -> None:
        observed.world.redis.down = 20 < observed.world.turns < 60
        seen.append(observed.figure("fccl_store_up"))

    observed.world.each_turn = look
    observed.serve()
    changes = [value for value, before in zip(seen, [None, *seen], strict=False) if value != before]
    assert changes == [0.0, 1.0, 0.0, 1.0]  # not yet, up, lost, back


def test_dead_letters_are_counted(observed: Observed) -> None:
    world = observed.world
    world.once_issued(lambda: world.mine.publish_update(world.topology, LOCAL, Message(b"no")))
    observed.serve()
    assert observed.figure("fccl_dead_letters_total") == 1


def test_a_restart_counts_anew_and_shows_the_newest_version_at_once(observed: Observed) -> None:
    observed.serve()
    registry = CollectorRegistry()
    CoordinatorMetrics(registry, observed.health, observed.world.open())
    assert registry.get_sample_value("fccl_updates_accepted_total", {"site": "local"}) == 0
    assert registry.get_sample_value("fccl_version") == 3
    assert registry.get_sample_value("fccl_train_loss") == observed.figure("fccl_train_loss")


def test_every_metric_has_our_prefix_and_a_help_text(observed: Observed) -> None:
    observed.serve()
    text = generate_latest(observed.registry).decode()
    helps = [line.split(" ", 3) for line in text.splitlines() if line.startswith("# HELP")]
    assert len(helps) > 25
    assert all(words[2].startswith("fccl_") and words[3] for words in helps)

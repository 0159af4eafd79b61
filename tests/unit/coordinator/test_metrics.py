"""Metrics of the coordinator, on real runs of the service."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from broker.embedded.broker import EmbeddedBroker
from broker.protocol import LOCAL, Message, Topology
from common.errors import BrokerError
from common.evaluation.contributions import running_contributions
from common.operations.health import Health
from common.protocol.kinds import EventKind
from common.protocol.wire import unpack
from common.store import view
from coordinator.core.events import RecordScores, UpdateScore
from coordinator.core.state import CoordinatorState
from coordinator.ingest import site_queues
from coordinator.metrics import CoordinatorMetrics
from tests.support.evaluation_records import evaluation, put_evaluations
from tests.support.polled_federation import PolledFederation


class Observed:
    """Run with its metrics."""

    def __init__(self, directory: Path) -> None:
        self.federation = PolledFederation(directory)
        self.registry = CollectorRegistry()
        self.health = Health(["broker", "store", "run"], 10.0)
        self.opened = self.federation.open()
        self.federation.metrics = CoordinatorMetrics(self.registry, self.health, self.opened)

    def serve(self) -> None:
        self.federation.service(self.opened).serve(self.federation.stop)

    def figure(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def observed(tmp_path: Path, small_chunks: None) -> Observed:
    return Observed(tmp_path)


def test_tasks_updates_and_versions_of_a_run_are_counted(observed: Observed) -> None:
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

    def record() -> None:
        figures = (
            observed.figure("fccl_workers", site="local"),
            observed.figure("fccl_queue_messages", queue="tasks", site="local"),
            observed.figure("fccl_queue_messages", queue="dead", site=""),
        )
        seen.append(figures)

    observed.federation.on_turn = record
    observed.serve()
    assert (1.0, 0.0, 0.0) in seen
    assert observed.health.is_working("run")
    assert observed.health.is_working("store")
    assert not observed.health.is_working("broker")  # not reported by the service


def test_a_store_that_is_lost_makes_the_coordinator_unready(observed: Observed) -> None:
    seen: list[float | None] = []

    def record() -> None:
        observed.federation.redis.down = 20 < observed.federation.turns < 60
        seen.append(observed.figure("fccl_store_up"))

    observed.federation.on_turn = record
    observed.serve()
    changes = [value for value, before in zip(seen, [None, *seen], strict=False) if value != before]
    assert changes == [0.0, 1.0, 0.0, 1.0]  # not yet, up, lost, back


def test_dead_letters_are_counted(observed: Observed) -> None:
    federation = observed.federation
    federation.once_issued(
        lambda: federation.site_broker.publish_update(federation.topology, LOCAL, Message(b"no"))
    )
    observed.serve()
    assert observed.figure("fccl_dead_letters_total") == 1


def test_after_a_restart_counters_begin_at_zero_and_the_newest_version_is_shown_immediately(
    observed: Observed,
) -> None:
    observed.serve()
    registry = CollectorRegistry()
    CoordinatorMetrics(registry, observed.health, observed.federation.open())
    assert registry.get_sample_value("fccl_updates_accepted_total", {"site": "local"}) == 0
    assert registry.get_sample_value("fccl_version") == 3
    assert registry.get_sample_value("fccl_train_loss") == observed.figure("fccl_train_loss")


def test_evaluations_at_the_sites_and_contributions_of_clients_are_shown(
    observed: Observed,
) -> None:
    records = [
        *(evaluation("client_0", version, 3.0 - version) for version in (0, 1)),
        *(evaluation("client_1", version, 4.0 - version) for version in (0, 1)),
    ]
    put_evaluations(observed.opened.journal._db, records)
    observed.registry = CollectorRegistry()
    CoordinatorMetrics(observed.registry, observed.health, observed.opened)
    figure = observed.figure
    assert figure("fccl_evaluated_version", phase="0") == 1
    assert figure("fccl_best_version", phase="0") == 1
    pooled = figure("fccl_evaluation", phase="0", metric="nats_per_token")
    assert pooled == pytest.approx(2.5)
    worst = {"phase": "0", "metric": "nats_per_token", "client": "client_1"}
    assert figure("fccl_evaluation_worst", **worst) == pytest.approx(3.0)
    assert figure("fccl_evaluation_clients", phase="0") == 2


def test_the_contribution_of_each_client_follows_the_commits(observed: Observed) -> None:
    observed.serve()
    expected = running_contributions(observed.opened.journal.versions())
    assert expected
    for client, value in expected.items():
        assert observed.figure("fccl_client_contribution", client=client) == pytest.approx(value)


def test_the_cost_of_scores_is_counted(observed: Observed) -> None:
    scores = (UpdateScore("t1", 0.1, 2.0, 30), UpdateScore("t2", 0.2, 1.0, 4))
    state = CoordinatorState()
    step = (RecordScores("federated", scores),)
    observed.federation.metrics.on_step(state, state, step, {}, 0.0)
    assert observed.figure("fccl_updates_scored_total", source="federated") == 2
    assert observed.figure("fccl_score_seconds_total", source="federated") == 3.0
    assert observed.figure("fccl_score_bytes_total", source="federated") == 34


def test_every_metric_has_our_prefix_and_a_help_text(observed: Observed) -> None:
    observed.serve()
    text = generate_latest(observed.registry).decode()
    helps = [line.split(" ", 3) for line in text.splitlines() if line.startswith("# HELP")]
    assert len(helps) > 25
    assert all(words[2].startswith("fccl_") and words[3] for words in helps)


def test_lost_queues_are_counted_and_reported(observed: Observed) -> None:
    federation = observed.federation

    def lose_queues() -> None:
        if federation.turns == 8:
            federation.site_broker.delete(federation.topology)

    federation.on_turn = lose_queues
    observed.serve()
    assert observed.figure("fccl_broker_repairs_total") == 3
    [event] = [event for event in federation.events if event.kind == EventKind.REPAIRED]
    assert event.level == "warning"
    assert all(name in event.text for name in federation.topology.queues)
    assert observed.figure("fccl_version") == 3


def test_queues_that_cannot_be_verified_make_the_coordinator_unready(
    observed: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems: list[tuple[str, ...]] = []
    details: list[str] = []
    federation = observed.federation

    def refuse(self: EmbeddedBroker, topology: Topology) -> tuple[str, ...]:
        if federation.worker_is_absent:
            raise BrokerError("no permission")
        return ()

    def record() -> None:
        federation.worker_is_absent = federation.turns < 20
        problems.append(observed.health.problems())
        if raw := federation.store.get_info(federation.topology.run):
            details.append(unpack(view.RunInfo, raw)[0].detail)

    monkeypatch.setattr(EmbeddedBroker, "repair", refuse)
    monkeypatch.setattr(site_queues, "CHECK_S", 1.0)
    federation.on_turn = record
    observed.serve()
    assert any("no permission" in text for problem in problems for text in problem)
    assert any("no permission" in detail for detail in details)
    assert observed.health.is_working("run")
    assert "no permission" not in details[-1]

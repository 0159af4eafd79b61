"""Tests of a worker's metrics, and that the documents name every metric and no other."""

from __future__ import annotations

import re
from http import HTTPStatus
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from common.operations.health import Health
from common.protocol.heartbeat import Heartbeat, InboxFigures
from common.protocol.updates import TaskSeconds
from tests.support.paths import DOCS
from tests.support.polled_federation import PolledFederation
from tests.support.virtual_federation import make_stats
from worker.metrics import Metrics

OPERATIONS = DOCS / "operations.md"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def health() -> Health:
    return Health(["broker", "store", "run"], 10.0)


def test_what_a_worker_did_is_counted(registry: CollectorRegistry, health: Health) -> None:
    metrics, figure = Metrics(registry, health), registry.get_sample_value
    assert figure("fccl_worker_tasks_total", {"outcome": "refused"}) == 0
    assert figure("fccl_worker_task_seconds_total", {"part": "measure"}) == 0
    spent = TaskSeconds(load=0.5, measure=2.0)
    metrics.on_task_end("trained", make_stats().model_copy(update={"seconds": spent}))
    metrics.on_task_end("abandoned")
    seconds = {"training": make_stats().train_seconds, "load": 0.5, "measure": 2.0, "encode": 0.0}
    for part, value in seconds.items():
        assert figure("fccl_worker_task_seconds_total", {"part": part}) == value
    metrics.on_publish(100)
    metrics.on_publish(100)
    metrics.on_receipt("accepted")
    metrics.on_inbox_response(HTTPStatus.UNAUTHORIZED)
    assert figure("fccl_worker_inbox_requests_total", {"status": "401"}) == 1
    assert figure("fccl_worker_tasks_total", {"outcome": "trained"}) == 1
    assert figure("fccl_worker_tasks_total", {"outcome": "abandoned"}) == 1
    assert figure("fccl_worker_receipts_total", {"state": "accepted"}) == 1
    assert figure("fccl_worker_train_seconds_sum") == make_stats().train_seconds
    assert figure("fccl_worker_tokens_total") == make_stats().num_tokens
    assert figure("fccl_worker_publish_bytes_total") == 200


def test_the_state_of_a_worker_is_read_when_the_metrics_are_scraped(
    registry: CollectorRegistry, health: Health
) -> None:
    metrics, figure = Metrics(registry, health), registry.get_sample_value
    beats = [Heartbeat(worker_id="w", site="local", state="waiting", tokens_per_s=70.0)]
    metrics.watch(lambda: beats[-1], lambda: 3)
    assert figure("fccl_worker_state", {"state": "waiting"}) == 1
    assert figure("fccl_worker_tokens_per_second") == 0  # of a task that is over
    assert figure("fccl_worker_updates_waiting") == 3
    assert figure("fccl_worker_inbox_items", {"state": "waiting"}) == 0
    rows = tuple(
        InboxFigures(client_id=client, waiting=2, learned=3, settled=4, rejected=1)
        for client in "ab"
    )
    changed = {"state": "training", "progress": 0.5, "inbox": rows}
    beats.append(beats[0].model_copy(update=changed))
    found = {"waiting": 4, "learned": 6, "settled": 8, "rejected": 2}
    for state, count in found.items():
        assert figure("fccl_worker_inbox_items", {"state": state}) == count
    assert figure("fccl_worker_state", {"state": "waiting"}) == 0
    assert figure("fccl_worker_state", {"state": "training"}) == 1
    assert figure("fccl_worker_tokens_per_second") == 70
    assert figure("fccl_worker_progress_ratio") == 0.5


def test_a_heartbeat_that_does_not_arrive_makes_the_worker_unready(
    registry: CollectorRegistry, health: Health
) -> None:
    metrics = Metrics(registry, health)
    for part in ("broker", "run"):
        health.set_problem(part)
    metrics.on_heartbeat(True)
    assert health.problems() == ()
    metrics.on_heartbeat(False)
    assert health.problems() == ("store: does not answer",)


def test_the_documents_name_every_metric_and_no_other(
    registry: CollectorRegistry, health: Health, tmp_path: Path
) -> None:
    from coordinator.metrics import CoordinatorMetrics

    CoordinatorMetrics(registry, health, PolledFederation(tmp_path).open())
    beat = Heartbeat(worker_id="w", site="local", state="waiting")
    Metrics(registry, health).watch(lambda: beat, lambda: 0)
    kinds = {"counter": "_total", "info": "_info"}
    exported = {metric.name + kinds.get(metric.type, "") for metric in registry.collect()}
    exported.add("fccl_train_loss")  # which there is from the first version on
    exported.add("fccl_privacy_epsilon")  # which there is with differential privacy
    table = [line for line in OPERATIONS.read_text().splitlines() if line.startswith("| `fccl_")]
    documented = {name for line in table for name in re.findall(r"fccl_[a-z_]+", line)}
    assert documented == exported

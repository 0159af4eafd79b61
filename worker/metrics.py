"""Metrics of a worker for Prometheus.

Counters start at zero with the process. Values that the worker's heartbeat has anyway are read when
the metrics are scraped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric

from common.operations.health import Health
from common.operations.metrics_server import ComputedMetrics, gauge
from common.protocol.fields import TaskState
from common.protocol.heartbeat import Heartbeat
from common.protocol.updates import ContributionStats, TaskSeconds
from common.store.inbox_totals import add_up
from worker.observer import Observer, TaskOutcome

SECONDS = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)
ITEMS = ("waiting", "learned", "settled", "rejected")
PARTS = ("training", *TaskSeconds.model_fields)
STATES: tuple[str, ...] = get_args(Heartbeat.model_fields["state"].annotation)


class Metrics(Observer):
    """Metrics and health of one worker process."""

    def __init__(self, registry: CollectorRegistry, health: Health) -> None:
        self._registry, self._health = registry, health
        self._watched: tuple[Callable[[], Heartbeat], Callable[[], int]] | None = None
        self._tasks = Counter("fccl_worker_tasks", "Tasks", ["outcome"], registry=registry)
        self._receipts = Counter("fccl_worker_receipts", "Receipts", ["state"], registry=registry)
        self._tokens = Counter("fccl_worker_tokens", "Tokens trained on", registry=registry)
        self._bytes = Counter(
            "fccl_worker_publish_bytes", "Bytes of updates, repeats included", registry=registry
        )
        self._seconds = Histogram(
            "fccl_worker_train_seconds", "Training one task", buckets=SECONDS, registry=registry
        )
        self._parts = Counter(
            "fccl_worker_task_seconds",
            "Time of tasks whose update was made",
            ["part"],
            registry=registry,
        )
        self._evaluation_seconds = Counter(
            "fccl_worker_evaluation_seconds", "Scoring rows in evaluations", registry=registry
        )
        self._responses = Counter(
            "fccl_worker_inbox_requests", "Answers of --inbox-port", ["status"], registry=registry
        )
        for part in PARTS:
            self._parts.labels(part)
        for outcome in get_args(TaskOutcome):
            self._tasks.labels(outcome)  # 0 from the start, so that rates see the first
        for state in get_args(TaskState):
            self._receipts.labels(state)

    def watch(self, heartbeat: Callable[[], Heartbeat], waiting: Callable[[], int]) -> None:
        """Export the state of this worker, in place of the one before it.

        `waiting` returns the number of its updates without a receipt.
        """
        first = self._watched is None
        self._watched = heartbeat, waiting
        if first:
            self._registry.register(ComputedMetrics(self._read_watched))

    def _read_watched(self) -> Iterator[Metric]:
        if self._watched is None:
            return iter(())
        heartbeat, waiting = self._watched
        return _state_metrics(heartbeat(), waiting(), self._health)

    def on_turn(self) -> None:
        self._health.tick()

    def on_task_end(self, outcome: TaskOutcome, stats: ContributionStats | None = None) -> None:
        self._tasks.labels(outcome).inc()
        if stats is not None:
            self._seconds.observe(stats.train_seconds)
            self._tokens.inc(stats.num_tokens)
            for part, seconds in stats.parts().items():
                self._parts.labels(part).inc(seconds)

    def on_evaluation(self, seconds: float) -> None:
        self._tasks.labels("evaluated").inc()
        self._evaluation_seconds.inc(seconds)

    def on_publish(self, nbytes: int) -> None:
        self._bytes.inc(nbytes)

    def on_receipt(self, state: TaskState) -> None:
        self._receipts.labels(state).inc()

    def on_inbox_response(self, status: int) -> None:
        self._responses.labels(str(int(status))).inc()

    def on_heartbeat(self, arrived: bool) -> None:
        self._health.set_problem("store", "" if arrived else "does not answer")


def _state_metrics(beat: Heartbeat, waiting: int, health: Health) -> Iterator[Metric]:
    yield InfoMetricFamily(
        "fccl_worker",
        "Worker, site and software",
        value={"worker": beat.worker_id, "site": beat.site, "software": beat.software},
    )
    states = GaugeMetricFamily("fccl_worker_state", "1 for the current state", labels=["state"])
    for state in STATES:
        states.add_metric([state], float(beat.state == state))
    yield states
    training = beat.state == "training"
    yield gauge(
        "fccl_worker_tokens_per_second",
        "Speed of the current task; 0 between tasks",
        beat.tokens_per_s if training else 0.0,
    )
    yield gauge("fccl_worker_progress_ratio", "Progress of the current task", beat.progress)
    yield gauge("fccl_worker_updates_waiting", "Updates without a receipt", waiting)
    totals = add_up(beat.inbox)
    items = GaugeMetricFamily(
        "fccl_worker_inbox_items", "Live input of its clients, by state", labels=["state"]
    )
    for state in ITEMS:
        items.add_metric([state], float(getattr(totals, state)))
    yield items
    yield gauge("fccl_worker_store_up", "1: Redis answers", health.is_working("store"))
    yield gauge("fccl_worker_broker_up", "1: RabbitMQ is connected", health.is_working("broker"))

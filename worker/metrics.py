"""A worker's figures for Prometheus; an observer of the service.

Counters count since this process started; what the worker's heartbeat says anyway is looked up when
it is scraped.
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
from common.protocol.updates import ContributionStats
from common.store.inbox_totals import add_up
from worker.observer import Outcome

SECONDS = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)
ITEMS = ("waiting", "learned", "settled", "rejected")
STATES: tuple[str, ...] = get_args(Heartbeat.model_fields["state"].annotation)


class Metrics:
    """One worker's; see `worker.observer.Observer`."""

    def __init__(self, registry: CollectorRegistry, health: Health) -> None:
        """Register the counters; `watch` adds what the worker itself knows.

        Args:
            registry: Of this process.
            health: Told that the worker gets on, and whether the store answers.
        """
        self._registry, self._health = registry, health
        self._seen: tuple[Callable[[], Heartbeat], Callable[[], int]] | None = None
        self._ended = Counter("fccl_worker_tasks", "Tasks", ["outcome"], registry=registry)
        self._settled = Counter("fccl_worker_receipts", "Receipts", ["state"], registry=registry)
        self._tokens = Counter("fccl_worker_tokens", "Tokens trained on", registry=registry)
        self._bytes = Counter(
            "fccl_worker_publish_bytes", "Bytes of updates, repeats included", registry=registry
        )
        self._seconds = Histogram(
            "fccl_worker_train_seconds", "Training one task", buckets=SECONDS, registry=registry
        )
        self._asked = Counter(
            "fccl_worker_inbox_requests", "Answers of --inbox-port", ["status"], registry=registry
        )
        for outcome in get_args(Outcome):
            self._ended.labels(outcome)  # 0 from the start, so that rates see the first
        for state in get_args(TaskState):
            self._settled.labels(state)

    def watch(self, heartbeat: Callable[[], Heartbeat], waiting: Callable[[], int]) -> None:
        """Show what a worker says of itself, instead of the one before it.

        Args:
            heartbeat: What it does now.
            waiting: Its updates without a receipt.
        """
        first = self._seen is None
        self._seen = heartbeat, waiting
        if first:
            self._registry.register(ComputedMetrics(self._derived))

    def _derived(self) -> Iterator[Metric]:
        if self._seen is None:
            return iter(())
        heartbeat, waiting = self._seen
        return _derived(heartbeat(), waiting(), self._health)

    def turned(self) -> None:
        """See `Observer.turned`."""
        self._health.tick()

    def ended(self, outcome: Outcome, stats: ContributionStats | None = None) -> None:
        """See `Observer.ended`."""
        self._ended.labels(outcome).inc()
        if stats is not None:
            self._seconds.observe(stats.train_seconds)
            self._tokens.inc(stats.num_tokens)

    def published(self, nbytes: int) -> None:
        """See `Observer.published`."""
        self._bytes.inc(nbytes)

    def settled(self, state: TaskState) -> None:
        """See `Observer.settled`."""
        self._settled.labels(state).inc()

    def asked(self, status: int) -> None:
        """The endpoint of `--inbox-port` has answered, with a status of HTTP."""
        self._asked.labels(str(int(status))).inc()

    def beaten(self, arrived: bool) -> None:
        """See `Observer.beaten`."""
        self._health.set_problem("store", "" if arrived else "does not answer")


def _derived(beat: Heartbeat, waiting: int, health: Health) -> Iterator[Metric]:
    yield InfoMetricFamily(
        "fccl_worker",
        "Which worker, and by which software",
        value={"worker": beat.worker_id, "site": beat.site, "software": beat.software},
    )
    states = GaugeMetricFamily("fccl_worker_state", "1: what it does now", labels=["state"])
    for state in STATES:
        states.add_metric([state], float(beat.state == state))
    yield states
    training = beat.state == "training"
    yield gauge(
        "fccl_worker_tokens_per_second",
        "Speed of the task at hand; 0 between tasks",
        beat.tokens_per_s if training else 0.0,
    )
    yield gauge("fccl_worker_progress_ratio", "Of the task at hand", beat.progress)
    yield gauge("fccl_worker_updates_waiting", "Updates without a receipt", waiting)
    found = add_up(beat.inbox)
    items = GaugeMetricFamily(
        "fccl_worker_inbox_items", "What users told its clients", labels=["state"]
    )
    for state in ITEMS:
        items.add_metric([state], float(getattr(found, state)))
    yield items
    yield gauge("fccl_worker_store_up", "1: Redis answers", health.is_working("store"))
    yield gauge("fccl_worker_broker_up", "1: RabbitMQ is connected", health.is_working("broker"))

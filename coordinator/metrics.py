"""Metrics of the coordinator for Prometheus; an observer of the service.

Counters count since this process started. Gauges are computed from the newest state when they are
scraped. Labels are sites, clients of the journal and kinds of rejections, whose number is bounded,
never free text.
docs/operations.md explains what to watch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric

from broker.protocol import QueueDepth
from common.clock import Clock, wall_clock
from common.evaluation.contributions import add_commit, running_contributions
from common.evaluation.rows import EvaluationRow
from common.operations.health import Health
from common.operations.metrics_server import ComputedMetrics, gauge
from common.protocol.kinds import EventKind
from common.protocol.versions import VersionSummary
from coordinator.core.events import (
    AcceptUpdate,
    Action,
    CloseTask,
    DiscardMessage,
    IssueTask,
    LogEvent,
    RecordScores,
)
from coordinator.core.minimum import live_clients, minimum
from coordinator.core.privacy import current_spending
from coordinator.core.state import BufferedUpdate, CoordinatorState
from coordinator.evaluation_metrics import (
    contribution_gauges,
    evaluation_gauges,
    privacy_gauges,
)
from coordinator.observer import CoordinatorObserver
from coordinator.publish import rows
from coordinator.storage.run import Run

STALENESS = (0, 1, 2, 3, 5, 8, 13, 20, 50)
SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


@dataclass
class _Newest:
    """Newest reports of the service."""

    state: CoordinatorState
    summary: VersionSummary
    contributions: Mapping[str, float]
    evaluations: tuple[EvaluationRow, ...]
    depths: Mapping[str, QueueDepth] = field(default_factory=dict)


class CoordinatorMetrics(CoordinatorObserver):
    """Metrics of one coordinator."""

    def __init__(
        self, registry: CollectorRegistry, health: Health, run: Run, clock: Clock = wall_clock
    ) -> None:
        """Register all metrics."""
        self._health, self._run, self._clock = health, run, clock
        newest = run.journal.newest_version()
        self._newest = _Newest(
            CoordinatorState(version=newest.version),
            newest,
            running_contributions(run.journal.each_version()),
            rows.evaluations(run),
        )
        self._evaluations_changed = False

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self._issued = counter(
            "fccl_tasks_issued", "Tasks issued, repeated attempts included", "site"
        )
        self._reissued = counter("fccl_tasks_reissued", "Tasks issued again", "site")
        self._accepted = counter("fccl_updates_accepted", "Updates accepted", "site")
        self._bytes = counter("fccl_update_bytes", "Bytes of accepted updates", "site")
        self._rejected = counter("fccl_updates_rejected", "Updates rejected", "reason")
        self._closed = counter("fccl_tasks_closed", "Tasks closed without an update", "reason")
        self._dead = counter("fccl_dead_letters", "Messages dead-lettered")
        self._repairs = counter(
            "fccl_broker_repairs", "Queues, exchanges and bindings that RabbitMQ had lost"
        )
        self._scored = counter("fccl_updates_scored", "Updates scored", "source")
        self._score_seconds = counter(
            "fccl_score_seconds", "Computing time of scores of updates", "source"
        )
        self._score_bytes = counter(
            "fccl_score_bytes", "Bytes that travelled for scores of updates", "source"
        )
        self._staleness = Histogram(
            "fccl_update_staleness",
            "Versions that an accepted update lags behind",
            buckets=STALENESS,
            registry=registry,
        )
        self._commit = Histogram(
            "fccl_commit_seconds",
            "Aggregating, writing and journaling a version",
            buckets=SECONDS,
            registry=registry,
        )
        for site in sorted({client.site for client in run.plan.clients.values()}):
            for each in (self._issued, self._reissued, self._accepted, self._bytes):
                each.labels(site)  # 0 from the start, so that rates see the first
        registry.register(ComputedMetrics(self._compute))

    def on_turn(self) -> None:
        self._health.tick()

    def on_tick(self, state: CoordinatorState, store_up: bool, queue_problem: str) -> None:
        self._newest.state = state
        if self._evaluations_changed:
            self._newest.evaluations = rows.evaluations(self._run)
            self._evaluations_changed = False
        self._health.set_problem("store", "" if store_up else "does not answer")
        self._health.set_problem("run", queue_problem)

    def on_depths(self, depths: Mapping[str, QueueDepth]) -> None:
        self._newest.depths = depths

    def on_repair(self, names: tuple[str, ...]) -> None:
        self._repairs.inc(len(names))

    def on_step(
        self,
        before: CoordinatorState,
        after: CoordinatorState,
        actions: tuple[Action, ...],
        summaries: Mapping[int, VersionSummary],
        seconds: float,
    ) -> None:
        self._newest.state = after
        for action in actions:
            self._count(action, before)
        for summary in summaries.values():
            self._newest.summary = summary
            self._newest.contributions = add_commit(self._newest.contributions, summary)
            self._commit.observe(seconds)
        self._evaluations_changed |= rows.changes_evaluations(actions)

    def _count(self, action: Action, before: CoordinatorState) -> None:
        match action:
            case IssueTask():
                self._issued.labels(action.site).inc()
                if action.task.attempt > 1:
                    self._reissued.labels(action.site).inc()
            case AcceptUpdate():
                self._count_accepted(action.update, before)
            case RecordScores():
                self._count_scores(action)
            case CloseTask(attempt=0):
                self._closed.labels(action.rejection.kind.value).inc()
            case CloseTask() | DiscardMessage():
                self._rejected.labels(action.rejection.kind.value).inc()
        if isinstance(action, DiscardMessage) or _is_dead_letter(action):
            self._dead.inc()

    def _count_accepted(self, update: BufferedUpdate, before: CoordinatorState) -> None:
        site = before.members(self._run.plan)[update.client_id].site
        self._accepted.labels(site).inc()
        self._bytes.labels(site).inc(update.nbytes)
        self._staleness.observe(before.version - update.base_version)

    def _count_scores(self, action: RecordScores) -> None:
        self._scored.labels(action.source).inc(len(action.scores))
        self._score_seconds.labels(action.source).inc(sum(s.seconds for s in action.scores))
        self._score_bytes.labels(action.source).inc(sum(s.nbytes for s in action.scores))

    def _compute(self) -> Iterator[Metric]:
        state, plan, health = self._newest.state, self._run.plan, self._health
        phase = min(plan.phase_of(state.version), len(plan.phases) - 1)
        parked = sum(task.parked for task in state.tasks.values())
        members = state.members(plan)
        quarantined = sum(state.client(name).quarantined for name in members)
        live = len(live_clients(plan, state, self._clock()))
        yield InfoMetricFamily(
            "fccl_run",
            "The run and its software",
            value={
                "name": self._run.name,
                "run": self._run.run_id,
                "objective": plan.phases[phase].objective,
                "software": self._run.software,
            },
        )
        yield gauge("fccl_epoch", "Coordinators of this run so far", self._run.journal.epoch)
        yield gauge("fccl_version", "Newest version", state.version)
        yield gauge("fccl_versions_planned", "Version that ends the run", plan.total_versions)
        yield gauge("fccl_phase", "Index of the phase", phase)
        yield gauge("fccl_buffer_updates", "Updates that wait for a commit", len(state.buffer))
        yield gauge("fccl_buffer_size", "Updates that fill the buffer", plan.schedule.buffer)
        yield gauge("fccl_open_tasks", "Tasks without a receipt", len(state.tasks))
        yield gauge("fccl_parked_tasks", "Open tasks whose site is silent", parked)
        yield gauge("fccl_clients", "Clients of the run", len(members))
        yield gauge("fccl_live_clients", "Clients that can train and have a live worker", live)
        yield gauge(
            "fccl_min_clients",
            "Live clients below which nothing is issued or committed",
            minimum(plan, state),
        )
        evaluations = len(state.evaluations)
        yield gauge("fccl_open_evaluations", "Evaluations without an answer", evaluations)
        yield gauge("fccl_quarantined_clients", "Clients given no more tasks", quarantined)
        yield gauge("fccl_store_up", "1: Redis answers", health.is_working("store"))
        yield gauge("fccl_broker_up", "1: RabbitMQ is connected", health.is_working("broker"))
        yield from privacy_gauges(current_spending(plan, state))
        yield from self._compute_losses()
        yield from contribution_gauges(self._newest.contributions)
        yield from evaluation_gauges(self._newest.evaluations)
        yield from self._compute_sites(state)

    def _compute_losses(self) -> Iterator[Metric]:
        summary = self._newest.summary
        if summary.train_loss is not None:
            text = "Mean training loss of the newest version's updates, nats"
            yield gauge("fccl_train_loss", text, summary.train_loss)
        holdout = GaugeMetricFamily(
            "fccl_holdout_loss",
            "Loss on the clients' own holdouts, before and after they trained, nats",
            labels=["when"],
        )
        for when in ("before", "after"):
            if (loss := getattr(summary, f"holdout_{when}")) is not None:
                holdout.add_metric([when], loss)
        yield holdout

    def _compute_sites(self, state: CoordinatorState) -> Iterator[Metric]:
        workers = GaugeMetricFamily("fccl_workers", "Live workers", labels=["site"])
        resting = GaugeMetricFamily(
            "fccl_resting_workers", "Live workers outside the hours of their site", labels=["site"]
        )
        # Not the sites that heartbeats name: those are claims, and labels without bound.
        for site in sorted({c.site for c in state.members(self._run.plan).values()}):
            idle = state.resting_by_site.get(site, 0)
            workers.add_metric([site], state.workers_by_site.get(site, 0) + idle)
            resting.add_metric([site], idle)
        yield workers
        yield resting
        depths = GaugeMetricFamily(
            "fccl_queue_messages", "Messages ready on a queue", labels=["queue", "site"]
        )
        for name, depth in self._newest.depths.items():
            _, _, kind, *rest = name.split(".")  # fccl.RUN.KIND[.SITE]
            depths.add_metric([kind, *(rest or [""])], depth.messages)
        yield depths


def _is_dead_letter(action: Action) -> bool:
    return isinstance(action, LogEvent) and action.kind is EventKind.DEAD_LETTER

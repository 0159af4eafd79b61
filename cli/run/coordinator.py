"""`fccl coordinator`: own one run over RabbitMQ and Redis.

This process loads no torch: tasks that need it run in child processes (`cli/run/child_tasks.py`).
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import click

from broker.protocol import BrokerStatus
from broker.rabbit import broker as rabbit
from broker.rabbit.management import ManagementApi
from cli import checks, jsonlog
from cli.console import Output
from cli.options import (
    config_option,
    find_config,
    metrics_option,
    mode_from_flags,
    mode_options,
    plain_option,
    with_metrics_port,
)
from cli.run import session
from cli.run.child_plugins import check_plugins, make_evaluators, make_trackers
from cli.run.child_tasks import ChildTasks
from cli.run.health_server import COORDINATOR_LIMIT_S, ProcessStatus, serve_status
from cli.signals import handle_signals
from common.clock import steady_clock
from common.config import loader
from common.config.config import FederationConfig
from common.protocol.naming import LOCAL_SITE
from common.store.store import Store, connect
from common.urls import BROKER, parse_url
from coordinator.metrics import CoordinatorMetrics
from coordinator.publish.delivery import DeliveryPublisher
from coordinator.service import Service
from coordinator.sites.credentials import SiteAccess
from coordinator.sites.registry import SiteRegistry


@click.command()
@config_option
@mode_options
@plain_option
@metrics_option
def command(
    config_path: Path | None,
    resume: bool,
    new: bool,
    continue_: bool,
    plain: bool,
    metrics_port: int | None,
) -> None:
    """Own a run: prepare data and model if necessary, schedule, aggregate, commit, report."""
    config = with_metrics_port(loader.load(find_config(config_path)), metrics_port)
    log = jsonlog.install("coordinator") if config.operations.log == "json" else None
    sys.exit(serve(config, mode_from_flags(resume, new, continue_), Output(plain, log)))


def serve(config: FederationConfig, mode: str, output: Output) -> int:
    """Coordinate until the plan is complete or a stop is requested; return the exit code."""
    checks.check_coordinator(config, mode)
    check_plugins(config, output)
    with serve_status(config.operations, COORDINATOR_LIMIT_S) as status:
        return _serve(config, mode, output, status)


def _serve(config: FederationConfig, mode: str, output: Output, status: ProcessStatus) -> int:
    def on_broker_status(broker_status: BrokerStatus) -> None:
        status.set_broker(broker_status)
        output.event("broker", str(broker_status))

    store = connect(config.store.url, ca=config.store.ca)
    tasks = ChildTasks(output)
    broker = rabbit.connect(config.broker.url, on_broker_status, ca=config.broker.ca)

    def delete_queues(old: str) -> None:
        session.delete_queues(config, broker, old)

    with (
        closing(broker),
        session.opened_run(config, mode, tasks, output, delete_queues) as run,
    ):
        output.set_context(run=run.run_id)
        service = Service(
            run,
            broker,
            store,
            steady_clock(),
            users={LOCAL_SITE: parse_user(config.broker.url)},
            access=make_site_access(config, store),
            on_event=output.print_event,
            queue_type=config.broker.queue_type,
            update_bytes=config.broker.site_mib << 20,
            metrics=CoordinatorMetrics(status.registry, status.health, run),
            samples=tasks.live_samples(run),
            scores=tasks.update_scores(run),
            evaluators=make_evaluators(run),
            trackers=make_trackers(run),
            delivery=DeliveryPublisher(run, store, time.time, tasks.write_cards),
        )
        stop = threading.Event()
        handle_signals([stop])
        outcome = service.serve(stop)
        status.set_over()
        path = session.conclude(run, outcome, tasks, output)
    if path is not None:
        output.print(path.read_text(encoding="utf-8"))
        output.print(f"report: {path}")
    return session.exit_code(outcome)


def make_site_access(config: FederationConfig, store: Store) -> SiteAccess:
    broker = config.broker
    management = ManagementApi(broker.url, broker.management, broker.ca)
    return SiteAccess(config.run.name, SiteRegistry(config.run.sites), management, store, time.time)


def parse_user(url: str) -> str:
    """Return the user of an AMQP URL; RabbitMQ's default if it names none."""
    return parse_url(url, BROKER).user or "guest"

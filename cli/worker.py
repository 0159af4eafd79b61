"""`fccl worker`: trains beside the data, over RabbitMQ and Redis."""

from __future__ import annotations

import re
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from broker.protocol import Site
from broker.rabbit import RabbitBroker
from cli import jsonlog
from cli.console import Output
from cli.jsonlog import JsonLog
from cli.operating import WORKER_LIMIT_S, Operated, operated
from cli.options import config_option, find_config, metrics_option, with_metrics_port
from cli.stopping import on_signals
from common import config as configuration
from common.config import FederationConfig
from common.errors import DataError
from common.paths import cache_dir
from common.software import software
from common.store import connect
from worker.joining import ended, find_run

if TYPE_CHECKING:
    from learning.device import Compute


@click.command()
@config_option
@click.option("--site", default="local", help="The site whose credentials are used [local].")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Directory of client files [default: clients/ of the run directory].",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="Directory for work in flight [default: .workers/ beside the run directory].",
)
@click.option("--device", default="auto", help="cpu, cuda, cuda:1 … [what is there].")
@click.option("--compile", "compiled", is_flag=True, help="torch.compile: slow start, fast steps.")
@metrics_option
def command(
    config_path: Path | None,
    site: str,
    data: Path | None,
    state: Path | None,
    device: str,
    compiled: bool,
    metrics_port: int | None,
) -> None:
    """Take tasks, train them on local data, publish the deltas; until the run is over."""
    config = with_metrics_port(configuration.load(find_config(config_path)), metrics_port)
    log = jsonlog.install("worker") if config.operations.log == "json" else None
    if data is not None and not data.is_dir():
        raise DataError(f"{data} is no directory", "name one of client files with --data")
    place = data or config.run.path / "clients"
    named, kept = Site(site), state or Path(config.run.dir) / ".workers"
    with operated(config.operations, WORKER_LIMIT_S) as shown:
        from learning.device import detect

        compute = detect(device, compiled=compiled)
        sys.exit(serve(config, named, place, kept, compute, shown, log))


def serve(
    config: FederationConfig,
    site: Site,
    data: Path,
    state: Path,
    compute: Compute,
    shown: Operated,
    log: JsonLog | None,
) -> int:
    """Run a worker until its run is over or it is asked to stop; returns the exit code."""
    output = Output(plain=True, log=log)
    stop = threading.Event()
    stores = (
        connect(config.store.url, ca=config.store.ca),
        connect(config.store.url, timeout_s=1.0, ca=config.store.ca),
    )
    run: str | None = None

    def tell_broker(state: str) -> None:
        shown.broker(state)
        if state.startswith("waiting") and run and ended(stores[1], config.run.name, run):
            return  # the queues of a run that is over are deleted
        output.told("broker", state)

    def tell_waiting(kind: str, text: str) -> None:
        shown.health.part("run", text)
        output.told(kind, text)

    def report(message: str, fraction: float) -> None:
        shown.health.turned()
        output.report(message, fraction)

    broker = RabbitBroker(config.broker.url, tell_broker, ca=config.broker.ca)
    try:
        from worker.metrics import Metrics
        from worker.service import Setting, Worker

        on_signals([stop])
        run = find_run(stores[0], config.run.name, stop, tell_waiting)
        if run is None:
            output.say("stopped before a run began")
            return 0
        setting = Setting(
            name=config.run.name,
            site=site,
            data=data,
            state=state,
            cache=cache_dir(),
            host=host(),
            software=software(),
        )
        metrics = Metrics(shown.registry, shown.health)
        worker = Worker(
            setting,
            run,
            broker,
            stores,
            compute,
            time.time,
            told=output.told,
            report=report,
            observe=metrics,
        )
        metrics.watch(worker.heartbeat, worker.waiting)
        shown.health.part("run")
        output.about(run=run, site=site.name, worker=worker.worker_id)
        output.say(f"worker {worker.worker_id} serves run {run} as site {site.name}")
        served = worker.serve(stop, abandon=stop)
        shown.over()
    finally:
        broker.close()
    output.say(
        f"{served.reason}: trained {served.trained} tasks, abandoned {served.abandoned},"
        f" {served.settled} updates settled, {served.waiting} wait for a receipt"
    )
    return 0


def host() -> str:
    """This machine's name, as a label."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40].strip("-") or "host"

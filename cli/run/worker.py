"""`fccl worker`: trains beside the data, over RabbitMQ and Redis."""

from __future__ import annotations

import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from broker.protocol import LOCAL, BrokerState, BrokerStatus, Site
from broker.rabbit import broker as rabbit
from broker.rabbit.broker import RabbitBroker
from broker.rabbit.probe import login_refused
from cli import jsonlog
from cli.console import Output
from cli.options import config_option, find_config, metrics_option, with_metrics_port
from cli.run import join_site
from cli.run.health_server import WORKER_LIMIT_S, ProcessStatus, serve_status
from cli.signals import handle_signals
from common.config import loader
from common.config.config import FederationConfig, IncrementalConfig
from common.errors import BrokerLoginError, ConfigError, DataError
from common.paths import cache_dir
from common.protocol.naming import LOCAL_SITE
from common.software import software_version
from common.store.store import Store
from worker.events import WorkerEventKind
from worker.site.enrolment import revoked_error
from worker.site.run_discovery import end_reason, follow_runs

if TYPE_CHECKING:
    from learning.training.device import Compute
    from worker.incremental.http.listener import Listener
    from worker.metrics import Metrics


@dataclass(frozen=True)
class Job:
    """What a worker process serves, and from where."""

    config: FederationConfig
    site: Site
    data: Path
    state: Path
    forever: bool = False

    @property
    def invited(self) -> str | None:
        """The name of the site, unless it is the coordinator's own."""
        return None if self.site == LOCAL else self.site.name


@click.command()
@config_option
@click.option("--site", default=LOCAL_SITE, help="The site whose credentials are used [local].")
@click.option(
    "--join",
    envvar="FCCL_JOIN",
    help="Join as an invited site: the token of `fccl invite`, @FILE that holds it, or - (stdin).",
)
@click.option(
    "--data",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Directory of client files [default: clients/ of the run directory]; an invited site"
    " names its files of rows, or such a directory.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="Directory for work in flight [default: .workers/ beside the run directory].",
)
@click.option("--device", default="auto", help="cpu, cuda, cuda:1 … [what is there].")
@click.option("--compile", "compiled", is_flag=True, help="torch.compile: slow start, fast steps.")
@click.option(
    "--forever", is_flag=True, help="When the run is over, wait for the next of its name."
)
@click.option(
    "--inbox-port",
    type=click.IntRange(0, 65535),
    help="Let applications of this machine tell clients something, at 127.0.0.1 there; 0: any.",
)
@metrics_option
def command(
    config_path: Path | None,
    site: str,
    join: str | None,
    data: tuple[Path, ...],
    state: Path | None,
    device: str,
    compiled: bool,
    forever: bool,
    inbox_port: int | None,
    metrics_port: int | None,
) -> None:
    """Take tasks, train them on local data, publish the deltas; until the run is over."""
    config = with_metrics_port(loader.load(find_config(config_path)), metrics_port)
    log = jsonlog.install("worker") if config.operations.log == "json" else None
    output = Output(plain=True, log=log)
    stop = threading.Event()
    with (
        serve_status(config.operations, WORKER_LIMIT_S) as shown,
        _listening(inbox_port, config.incremental) as listener,
    ):
        if join is not None or Site(site) != LOCAL:
            wanted = join_site.site_request(join, site, config.run.name)
            job = _invited(wanted, data, state, config.incremental, output, stop)
        else:
            job = _local(config, data, state)
        if job is None:
            output.print("stopped before it had joined")
            sys.exit(0)
        from learning.training.device import detect

        compute = detect(device, compiled=compiled)
        job = replace(job, forever=forever)
        with _answering(listener, job, output):
            sys.exit(serve(job, compute, output, stop, shown, listener))


@contextmanager
def _listening(port: int | None, limits: IncrementalConfig) -> Iterator[Listener | None]:
    """The port of `--inbox-port`, taken before anything slow is done."""
    if port is None:
        yield None
        return
    if not limits.enabled:
        raise ConfigError("--inbox-port: incremental.enabled is false", "set one of them otherwise")
    from worker.incremental.http.listener import Listener

    with Listener(port) as listener:
        yield listener


@contextmanager
def _answering(listener: Listener | None, job: Job, output: Output) -> Iterator[None]:
    """Answer there while the block runs, and say where, and where the token is."""
    if listener is None:
        yield
        return
    from worker.incremental.http.endpoint import Endpoint
    from worker.incremental.http.listener import HOST
    from worker.incremental.http.token import load_or_create_token, token_path

    endpoint = Endpoint(job.state, job.config.incremental, load_or_create_token(job.state))
    with listener.serving(endpoint):
        where = f"http://{HOST}:{listener.port}/learn"
        output.print(f"live input: POST to {where}, with the token in {token_path(job.state)}")
        yield


def _local(config: FederationConfig, data: tuple[Path, ...], state: Path | None) -> Job:
    if len(data) > 1:
        raise DataError(f"--data is given {len(data)} times", "name one directory of client files")
    if data and not data[0].is_dir():
        raise DataError(f"{data[0]} is no directory", "name one of client files with --data")
    place = data[0] if data else config.run.path / "clients"
    return Job(config, LOCAL, place, state or Path(config.run.dir) / ".workers")


def _invited(
    wanted: join_site.SiteRequest,
    data: tuple[Path, ...],
    state: Path | None,
    incremental: IncrementalConfig,
    output: Output,
    stop: threading.Event,
) -> Job | None:
    """Data first, then the network: a token is not used up for rows that cannot be read."""
    join_site.check_files(data)
    from worker.data.import_rows import import_rows

    rows = import_rows(data, wanted.site, wanted.place / "data", output.print)
    handle_signals([stop])
    config = join_site.join_federation(wanted, stop, host_name(), output.event)
    if config is None:
        return None
    # How its clients learn from their users is the site's own affair: the configuration of this
    # machine says it, as it says where metrics are served.
    config = config.model_copy(update={"incremental": incremental})
    return Job(config, Site(wanted.site), rows, state or wanted.place / "work")


def serve(
    job: Job,
    compute: Compute,
    output: Output,
    stop: threading.Event,
    shown: ProcessStatus,
    listener: Listener | None = None,
) -> int:
    """Run a worker until its run is over or it is asked to stop; returns the exit code."""
    handle_signals([stop])
    config = job.config
    stores = join_site.connect_stores(config, job.invited, stop, output.event)
    if stores is None:
        return 0
    run: str | None = None

    def on_broker_status(status: BrokerStatus) -> None:
        shown.broker(status)
        waiting = status.state is BrokerState.WAITING
        if waiting and run and end_reason(stores[1], config.run.name, run):
            return  # the queues of a run that is over are deleted
        output.event(WorkerEventKind.BROKER, str(status))

    def tell_waiting(kind: WorkerEventKind, text: str) -> None:
        shown.health.set_problem("run", text)
        output.event(kind, text)

    try:
        broker = rabbit.connect(config.broker.url, on_broker_status, ca=config.broker.ca)
    except BrokerLoginError:
        if job.invited is None:
            raise
        raise revoked_error(job.invited) from None
    from worker.metrics import Metrics

    metrics = Metrics(shown.registry, shown.health)
    if listener is not None:
        listener.counted = metrics.asked
    try:
        for run in follow_runs(stores[0], config.run.name, stop, tell_waiting, forever=job.forever):
            shown.health.set_problem("run")
            _serve(job, run, broker, stores, compute, output, stop, metrics)
        shown.over()
    finally:
        broker.close()
    if run is None:
        output.print("stopped before a run began")
    return 0


def _serve(
    job: Job,
    run: str,
    broker: RabbitBroker,
    stores: tuple[Store, Store],
    compute: Compute,
    output: Output,
    stop: threading.Event,
    metrics: Metrics,
) -> None:
    """One run, from now to its end, or until `stop`."""
    from worker.service import Worker, WorkerSettings

    def report(message: str, fraction: float) -> None:
        metrics.turned()
        output.progress(message, fraction)

    config = job.config
    setting = WorkerSettings(
        name=config.run.name,
        site=job.site,
        data=job.data,
        state=job.state,
        cache=cache_dir(),
        host=host_name(),
        software=software_version(),
    )
    worker = Worker(
        setting,
        run,
        broker,
        stores,
        compute,
        time.time,
        told=output.event,
        report=report,
        refused=lambda: login_refused(config.broker.url, config.broker.ca),
        observe=metrics,
        incremental=config.incremental,
    )
    metrics.watch(worker.heartbeat, worker.waiting)
    output.set_context(run=run, site=job.site.name, worker=worker.worker_id)
    output.print(f"worker {worker.worker_id} serves run {run} as site {job.site.name}")
    served = worker.serve(stop, abandon=stop)
    output.print(
        f"{served.reason}: trained {served.trained} tasks, abandoned {served.abandoned},"
        f" {served.settled} updates settled, {served.waiting} wait for a receipt"
    )


def host_name() -> str:
    """This machine's name, as a label."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40].strip("-") or "host"

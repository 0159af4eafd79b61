"""`fccl worker`: trains beside the data, over RabbitMQ and Redis."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from broker.protocol import LOCAL, Broker, BrokerState, BrokerStatus, Site
from broker.rabbit import broker as rabbit
from broker.rabbit.probe import login_refused
from cli import jsonlog
from cli.console import Output
from cli.options import config_option, find_config, metrics_option, with_metrics_port
from cli.run import join_site
from cli.run.delivery import receive
from cli.run.health_server import WORKER_LIMIT_S, ProcessStatus, serve_status
from cli.run.inbox_port import open_port, serve_inbox
from cli.run.job import WorkerJob, host_name, invited_job, local_job, settings_path
from cli.run.review import may_train, read_plan
from cli.signals import handle_signals
from common.config import loader
from common.errors import BrokerLoginError, ConfigError, StoreError
from common.paths import cache_dir
from common.protocol.naming import LOCAL_SITE
from common.protocol.run_plan import RunPlan
from common.software import software_version
from common.store.store import Store
from worker.data.import_rows import parse_columns
from worker.delivery.delivered import delivered_folder, read_delivered
from worker.events import WorkerEventKind
from worker.settings import loader as site_settings
from worker.site.enrolment import revoked_error
from worker.site.run_discovery import end_reason, follow_runs

if TYPE_CHECKING:
    from learning.training.device import Compute
    from worker.incremental.http.listener import Listener
    from worker.metrics import Metrics


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
    help="Directory of client files [default: clients/ of the run directory]. An invited site"
    " names its files of rows, or such a directory.",
)
@click.option(
    "--columns",
    multiple=True,
    metavar="FIELD=COLUMN,…",
    help="Columns of an invited site's files that have other names: text=frage,label=thema.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="Directory for work in flight [default: .workers/ beside the run directory].",
)
@click.option(
    "--base",
    type=click.Path(path_type=Path),
    help="Directory of the run's base model on this machine, used in place. Needed for a model over"
    " 1 GiB that is not on the hub.",
)
@click.option("--device", help="cpu, cuda, cuda:1 … [auto: a GPU if there is one].")
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    default=None,
    help="Use torch.compile: slow start, fast steps.",
)
@click.option(
    "--forever", is_flag=True, help="When the run is over, wait for the next one of the same name."
)
@click.option(
    "--inbox-port",
    type=click.IntRange(0, 65535),
    help="Accept live input from applications of this machine at this port of 127.0.0.1;"
    " 0 picks a free port.",
)
@click.option(
    "--review",
    is_flag=True,
    help="Print the run's plan and wait for yes. The approval is kept, so that services need none;"
    " another plan asks again.",
)
@metrics_option
def command(
    config_path: Path | None,
    site: str,
    join: str | None,
    data: tuple[Path, ...],
    columns: tuple[str, ...],
    state: Path | None,
    base: Path | None,
    device: str | None,
    compiled: bool | None,
    forever: bool,
    inbox_port: int | None,
    review: bool,
    metrics_port: int | None,
) -> None:
    """Take tasks, train them on local data and publish the deltas until the run is over.

    The settings of the site (memory, device, hours, bandwidth, accepted base models) are in
    worker.toml of the state directory, which the first start writes with comments;
    FCCL_WORKER__KEY=… and the options here override them.
    """
    config = with_metrics_port(loader.load(find_config(config_path)), metrics_port)
    if base is not None and not base.is_dir():
        raise ConfigError(
            f"--base {base} is not a directory", "give the directory of the run's base model"
        )
    log = jsonlog.install("worker") if config.operations.log == "json" else None
    output = Output(plain=True, log=log)
    stop = threading.Event()
    with (
        serve_status(config.operations, WORKER_LIMIT_S) as status,
        open_port(inbox_port, config.incremental) as listener,
    ):
        job: WorkerJob | None
        invited = join is not None or Site(site) != LOCAL
        request = join_site.site_request(join, site, config.run.name) if invited else None
        # Read before joining: a mistake in the file must not use up the token.
        own = site_settings.load(
            settings_path(config, request, state), device=device, compile=compiled
        )
        if request is not None:
            handle_signals([stop])
            mapped = parse_columns(columns)
            job = invited_job(
                request,
                data,
                state,
                config.incremental,
                output,
                stop,
                columns=mapped,
                forever=forever,
            )
        else:
            if columns:
                raise ConfigError("--columns is for invited sites", "set data.columns in the run")
            job = local_job(config, data, state, forever=forever)
        if job is None:
            output.print("stopped before the site had joined")
            sys.exit(0)
        site_settings.write_template(own.path)
        output.print(own.describe())
        from learning.training.device import detect

        compute = detect(own.settings.device, compiled=own.settings.compile)
        job = replace(
            job, base=base, site_settings=own.settings, settings_dir=own.path.parent, review=review
        )
        with serve_inbox(listener, job, output):
            sys.exit(serve(job, compute, output, stop, status, listener))


def serve(
    job: WorkerJob,
    compute: Compute,
    output: Output,
    stop: threading.Event,
    status: ProcessStatus,
    listener: Listener | None = None,
) -> int:
    """Run a worker until its run is over or `stop` is set, and return the exit code."""
    handle_signals([stop])
    config = job.config
    stores = join_site.connect_stores(config, job.invited_site, stop, output.event)
    if stores is None:
        return 0
    run: str | None = None

    def on_broker_status(broker_status: BrokerStatus) -> None:
        status.set_broker(broker_status)
        waiting = broker_status.state is BrokerState.WAITING
        if waiting and run and end_reason(stores[1], config.run.name, run):
            return  # the queues of a run that is over are deleted
        output.event(WorkerEventKind.BROKER, str(broker_status))

    def on_waiting(kind: WorkerEventKind, text: str) -> None:
        status.health.set_problem("run", text)
        output.event(kind, text)

    if _receive_missed(job, stores[0], stop, output) and not job.forever:
        return 0
    broker = _connect_broker(job, on_broker_status)
    from worker.metrics import Metrics

    metrics = Metrics(status.registry, status.health)
    if listener is not None:
        listener.on_response = metrics.on_inbox_response
    try:
        for run in follow_runs(stores[0], config.run.name, stop, on_waiting, forever=job.forever):
            status.health.set_problem("run")
            plan = read_plan(stores[0], run)
            if may_train(job, run, plan, stores[0], output, stop):
                _serve_run(job, run, plan, broker, stores, compute, output, stop, metrics)
            receive(job, run, stores[0], stop, output)
        status.set_over()
    finally:
        broker.close()
    if run is None:
        output.print("stopped before a run began")
    return 0


def _receive_missed(job: WorkerJob, store: Store, stop: threading.Event, output: Output) -> bool:
    """Fetch the result of a run that ended while this site was away; return whether there was one.

    A result that is on this machine already does not count: the worker waits for the next run.
    """
    name = job.config.run.name
    try:
        run = store.get_run(name)
    except StoreError:  # `follow_runs` reports it, and waits
        return False
    if run is None or not end_reason(store, name, run):
        return False
    known = read_delivered(delivered_folder(job.state, run))
    return known is None and receive(job, run, store, stop, output)


def _connect_broker(job: WorkerJob, on_status: Callable[[BrokerStatus], None]) -> Broker:
    try:
        return rabbit.connect(job.config.broker.url, on_status, ca=job.config.broker.ca)
    except BrokerLoginError:
        if job.invited_site is None:
            raise
        raise revoked_error(job.invited_site) from None


def _serve_run(
    job: WorkerJob,
    run: str,
    plan: RunPlan | None,
    broker: Broker,
    stores: tuple[Store, Store],
    compute: Compute,
    output: Output,
    stop: threading.Event,
    metrics: Metrics,
) -> None:
    from worker.factory import Connections, WorkerCallbacks, WorkerSettings, start_worker

    def on_progress(message: str, fraction: float) -> None:
        metrics.on_turn()
        output.progress(message, fraction)

    config = job.config
    settings = WorkerSettings(
        name=config.run.name,
        site=job.site,
        data=job.data,
        state=job.state,
        cache=cache_dir(),
        host=host_name(),
        software=software_version(),
        compute=compute,
        incremental=config.incremental,
        base=job.base,
        site_settings=job.site_settings,
        plan=plan,
    )
    callbacks = WorkerCallbacks(
        on_event=output.event,
        on_progress=on_progress,
        credentials_refused=lambda: login_refused(config.broker.url, config.broker.ca),
        metrics=metrics,
    )
    connections = Connections(broker, *stores)
    worker = start_worker(settings, run, connections, time.time, callbacks)
    metrics.watch(worker.heartbeat, worker.pending_count)
    output.set_context(run=run, site=job.site.name, worker=worker.worker_id)
    output.print(f"worker {worker.worker_id} serves run {run} as site {job.site.name}")
    summary = worker.serve(stop, abandon=stop)
    output.print(
        f"{summary.reason}: trained {summary.trained} tasks, abandoned {summary.abandoned},"
        f" evaluated {summary.evaluated} versions, {summary.settled} updates settled,"
        f" {summary.waiting} wait for a receipt"
    )

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
from cli.console import Output
from cli.options import config_option, find_config
from cli.stopping import on_signals
from common import config as configuration
from common.config import FederationConfig
from common.errors import DataError
from common.paths import cache_dir
from common.software import software
from common.store import Store, connect
from worker.joining import ended, runs

if TYPE_CHECKING:
    from learning.device import Compute
    from worker.service import Setting


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
@click.option(
    "--forever", is_flag=True, help="When the run is over, wait for the next of its name."
)
def command(
    config_path: Path | None,
    site: str,
    data: Path | None,
    state: Path | None,
    device: str,
    compiled: bool,
    forever: bool,
) -> None:
    """Take tasks, train them on local data, publish the deltas; until the run is over."""
    config = configuration.load(find_config(config_path))
    if data is not None and not data.is_dir():
        raise DataError(f"{data} is no directory", "name one of client files with --data")
    place = data or config.run.path / "clients"
    named, kept = Site(site), state or Path(config.run.dir) / ".workers"
    from learning.device import detect

    compute = detect(device, compiled=compiled)
    sys.exit(serve(config, named, place, kept, compute, forever=forever))


def serve(
    config: FederationConfig,
    site: Site,
    data: Path,
    state: Path,
    compute: Compute,
    *,
    forever: bool = False,
) -> int:
    """Run a worker until its run is over or it is asked to stop; returns the exit code."""
    output = Output(plain=True)
    stop = threading.Event()
    stores = (
        connect(config.store.url, ca=config.store.ca),
        connect(config.store.url, timeout_s=1.0, ca=config.store.ca),
    )
    run: str | None = None

    def tell_broker(state: str) -> None:
        if state.startswith("waiting") and run and ended(stores[1], config.run.name, run):
            return  # the queues of a run that is over are deleted
        output.told("broker", state)

    from worker.service import Setting

    setting = Setting(
        name=config.run.name,
        site=site,
        data=data,
        state=state,
        cache=cache_dir(),
        host=host(),
        software=software(),
    )
    broker = RabbitBroker(config.broker.url, tell_broker, ca=config.broker.ca)
    try:
        on_signals([stop])
        for run in runs(stores[0], config.run.name, stop, output.told, forever=forever):
            _serve(setting, run, broker, stores, compute, stop, output)
    finally:
        broker.close()
    if run is None:
        output.say("stopped before a run began")
    return 0


def _serve(
    setting: Setting,
    run: str,
    broker: RabbitBroker,
    stores: tuple[Store, Store],
    compute: Compute,
    stop: threading.Event,
    output: Output,
) -> None:
    """One run, from now to its end, or until `stop`."""
    from worker.service import Worker

    worker = Worker(
        setting,
        run,
        broker,
        stores,
        compute,
        time.time,
        told=output.told,
        report=output.report,
    )
    output.say(f"worker {worker.worker_id} serves run {run} as site {setting.site.name}")
    served = worker.serve(stop, abandon=stop)
    output.say(
        f"{served.reason}: trained {served.trained} tasks, abandoned {served.abandoned},"
        f" {served.settled} updates settled, {served.waiting} wait for a receipt"
    )


def host() -> str:
    """This machine's name, as a label."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40].strip("-") or "host"

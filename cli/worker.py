"""`fccl worker`: trains beside the data, over RabbitMQ and Redis."""

from __future__ import annotations

import re
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from broker.protocol import LOCAL, Site
from broker.rabbit import RabbitBroker, refused
from cli import joining
from cli.console import Output
from cli.options import config_option, find_config
from cli.stopping import on_signals
from common import config as configuration
from common.config import FederationConfig
from common.errors import BrokerRefused, DataError
from common.paths import cache_dir
from common.software import software
from worker.enrolment import out
from worker.joining import ended, find_run

if TYPE_CHECKING:
    from learning.device import Compute


@click.command()
@config_option
@click.option("--site", default="local", help="The site whose credentials are used [local].")
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
def command(
    config_path: Path | None,
    site: str,
    join: str | None,
    data: tuple[Path, ...],
    state: Path | None,
    device: str,
    compiled: bool,
) -> None:
    """Take tasks, train them on local data, publish the deltas; until the run is over."""
    output = Output(plain=True)
    stop = threading.Event()
    if join is not None or Site(site) != LOCAL:
        job = _invited(join, site, config_path, data, state, output, stop)
    else:
        job = _local(configuration.load(find_config(config_path)), data, state)
    if job is None:
        output.say("stopped before it had joined")
        sys.exit(0)
    from learning.device import detect

    sys.exit(serve(job, detect(device, compiled=compiled), output, stop))


@dataclass(frozen=True)
class Job:
    """What a worker process serves, and from where."""

    config: FederationConfig
    site: Site
    data: Path
    state: Path

    @property
    def invited(self) -> str | None:
        """The name of the site, unless it is the coordinator's own."""
        return None if self.site == LOCAL else self.site.name


def _local(config: FederationConfig, data: tuple[Path, ...], state: Path | None) -> Job:
    if len(data) > 1:
        raise DataError(f"--data is given {len(data)} times", "name one directory of client files")
    if data and not data[0].is_dir():
        raise DataError(f"{data[0]} is no directory", "name one of client files with --data")
    place = data[0] if data else config.run.path / "clients"
    return Job(config, LOCAL, place, state or Path(config.run.dir) / ".workers")


def _invited(
    join: str | None,
    site: str,
    config_path: Path | None,
    data: tuple[Path, ...],
    state: Path | None,
    output: Output,
    stop: threading.Event,
) -> Job | None:
    """Data first, then the network: a token is not used up for rows that cannot be read."""
    joining.check_files(data)
    found = joining.invitation(join) if join is not None else None
    if found is None:
        name = configuration.load(find_config(config_path)).run.name
        invited: joining.Invited | None = joining.known(site, name)
        place, named = invited.place, site  # type: ignore[union-attr]
    else:
        invited, place, named = None, joining.place_of(found), found.site
    from worker.bringing import bring

    rows = bring(data, named, place / "data", output.say)
    on_signals([stop])
    if found is not None:
        invited = joining.become(found, stop, host(), output.told)
    if invited is None:
        return None
    return Job(invited.config, Site(named), rows, state or place / "work")


def serve(job: Job, compute: Compute, output: Output, stop: threading.Event) -> int:
    """Run a worker until its run is over or it is asked to stop; returns the exit code."""
    on_signals([stop])
    config, site = job.config, job.site
    stores = joining.stores(config, job.invited, stop, output.told)
    if stores is None:
        return 0
    run: str | None = None

    def tell_broker(state: str) -> None:
        if state.startswith("waiting") and run and ended(stores[1], config.run.name, run):
            return  # the queues of a run that is over are deleted
        output.told("broker", state)

    try:
        broker = RabbitBroker(config.broker.url, tell_broker, ca=config.broker.ca)
    except BrokerRefused:
        if job.invited is None:
            raise
        raise out(job.invited) from None
    try:
        from worker.service import Setting, Worker

        run = find_run(stores[0], config.run.name, stop, output.told)
        if run is None:
            output.say("stopped before a run began")
            return 0
        setting = Setting(
            name=config.run.name,
            site=site,
            data=job.data,
            state=job.state,
            cache=cache_dir(),
            host=host(),
            software=software(),
        )
        worker = Worker(
            setting,
            run,
            broker,
            stores,
            compute,
            time.time,
            told=output.told,
            report=output.report,
            refused=lambda: refused(config.broker.url, config.broker.ca),
        )
        output.say(f"worker {worker.worker_id} serves run {run} as site {site.name}")
        served = worker.serve(stop, abandon=stop)
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

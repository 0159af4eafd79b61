"""`fccl coordinator`: owns one run over RabbitMQ and Redis."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click

from broker.rabbit import RabbitBroker
from cli import checks
from cli.console import Output
from cli.options import config_option, find_config, mode_of, mode_options, plain_option
from cli.stopping import on_signals
from common import config as configuration
from common.config import FederationConfig
from common.store import connect
from coordinator.run import SITE


@click.command()
@config_option
@mode_options
@plain_option
def command(config_path: Path | None, resume: bool, new: bool, either: bool, plain: bool) -> None:
    """Own a run: prepare data and model where needed, schedule, aggregate, commit, report."""
    config = configuration.load(find_config(config_path))
    sys.exit(serve(config, mode_of(resume, new, either), Output(plain)))


def serve(config: FederationConfig, mode: str, output: Output) -> int:
    """Coordinate until the plan is complete or a stop is asked for; returns the exit code."""
    checks.check(config, mode)
    store = connect(config.store.url, ca=config.store.ca)
    broker = RabbitBroker(
        config.broker.url, lambda state: output.told("broker", state), ca=config.broker.ca
    )
    try:
        from cli import coordinating
        from coordinator.service import Service
        from learning.device import detect

        run = coordinating.open_run(
            config, mode, output, lambda old: coordinating.forget_queues(broker, old)
        )
        service = Service(
            run,
            broker,
            store,
            time.time,
            users={SITE: user_of(config.broker.url)},
            listen=output.event,
        )
        stop = threading.Event()
        on_signals([stop])
        outcome = service.serve(stop)
        path = coordinating.conclude(run, outcome, detect, output)
    finally:
        broker.close()
    if path is not None:
        output.say(path.read_text(encoding="utf-8"))
        output.say(f"report: {path}")
    return coordinating.exit_code(outcome)


def user_of(url: str) -> str:
    """The user of an AMQP URL; RabbitMQ's own default where it names none."""
    return unquote(urlsplit(url).username or "guest")

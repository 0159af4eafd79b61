"""`fccl services`: a private RabbitMQ and Redis on this machine, for whoever has no Docker.

They listen on loopback, outlive the terminal, and keep to one folder. What runs is known by
process id and the moment it began (`cli.services.processes`), so `down` ends what `up` started and nothing
else.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

import click
from filelock import FileLock, Timeout
from rich.console import Console

from broker.rabbit.probe import probe
from cli.options import config_option, find_config
from cli.services import ports, servers
from cli.services.processes import Record, load
from cli.services.servers import PrivateRabbitMQ, PrivateRedis, Server, record_of
from common.config import loader
from common.config.config import FederationConfig
from common.errors import ConfigError, FcclError
from common.store.store import connect

AMQP_PORT, REDIS_PORT, MANAGEMENT_PORT = 5672, 6379, 15672
NEAR = 20  # ports above 15672 that are tried for the management API
LOOPBACK = ("localhost", "::1")
NOT_RUNNING = 1

F = TypeVar("F", bound=Callable[..., object])


@click.group()
def command() -> None:
    """A private RabbitMQ and Redis on this machine, from the binaries on PATH.

    For whoever has no Docker. They listen on loopback only, and go on when the terminal is closed.
    """


def _folder_option(function: F) -> F:
    return click.option(
        "--dir",
        "folder",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path(".services"),
        help="Where they keep their data and logs [.services].",
    )(function)


@command.command()
@config_option
@_folder_option
@click.option("--broker-port", type=click.IntRange(0, 65535), help="RabbitMQ's; 0: any free one.")
@click.option("--store-port", type=click.IntRange(0, 65535), help="Redis'; 0: any free one.")
@click.option(
    "--management-port",
    type=click.IntRange(0, 65535),
    help="Of RabbitMQ's management API; 0: any free one [15672, or the next free].",
)
def up(
    config_path: Path | None,
    folder: Path,
    broker_port: int | None,
    store_port: int | None,
    management_port: int | None,
) -> None:
    """Start both, on the ports of broker.url and store.url; again is harmless."""
    config = loader.load(find_config(config_path))
    amqp = _chosen(config.broker.url, "amqp", AMQP_PORT, broker_port)
    redis = _chosen(config.store.url, "redis", REDIS_PORT, store_port)
    with _alone(folder):
        sections = _servers(folder, redis, amqp, _management(config, management_port))
        missing = {name: each for name, each in sections.items() if _running(each) is None}
        for server in missing.values():
            server.find()
        for name, server in missing.items():
            _check_port(name, server.port)
        found = _start_both(tuple(sections.values()))
    _tell_urls(config, found)


def _start_both(both: tuple[Server, ...]) -> dict[str, Record]:
    """Start what does not run; all of it, or none."""
    started: list[Server] = []
    try:
        for server in both:
            if (record := _running(server)) is not None:
                servers.start(server)  # an earlier `up` may have been killed before it was ready
                click.echo(f"{server.name} runs already (process {record.processes[-1].pid})")
                continue
            started.append(server)
            _start(server)
    except BaseException:
        for server in started:
            servers.stop(server)
        raise
    return {server.name: load(record_of(server.home)) for server in both}


def _start(server: Server) -> None:
    console = Console(highlight=False)
    text = f"waiting for {server.name} …"
    if not console.is_terminal:
        click.echo(text)
    with console.status(text) as status:
        servers.start(server, lambda seconds: status.update(f"{text} {seconds:.0f} s"))
    click.echo(f"{server.name} is ready (process {load(record_of(server.home)).processes[-1].pid})")


@command.command()
@_folder_option
def down(folder: Path) -> None:
    """Stop what `up` started in this folder; its data stays."""
    both = _both(folder)
    if not any(load(record_of(server.home)).left for server in both):
        click.echo(f"nothing runs from {folder.absolute()}")
        return
    with _alone(folder):
        for server in reversed(both):
            with Console().status(f"stopping {server.name} …"):
                stopped = servers.stop(server)
            if stopped:
                click.echo(f"stopped {server.name}")


@command.command()
@_folder_option
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def status(folder: Path, as_json: bool) -> None:
    """Say whether they run; exit code 1 where one does not."""
    states = {server.name: _state(server) for server in _both(folder)}
    if as_json:
        click.echo(json.dumps({n.lower(): s.fields() for n, s in states.items()}, indent=2))
    else:
        for name, state in states.items():
            click.echo(f"{name:9} {state}")
    if any(state.word != "running" for state in states.values()):
        sys.exit(NOT_RUNNING)


@dataclass(frozen=True)
class State:
    """What `status` says of one.

    Attributes:
        word: `running`, `silent` (its process is there, and takes no login) or `stopped`.
    """

    word: str
    url: str
    pid: int
    management: str | None
    log: Path

    def fields(self) -> dict[str, object]:
        """For `--json`."""
        there = self.word != "stopped"
        return {
            "state": self.word,
            "url": self.url if there else None,
            "pid": self.pid if there else None,
            "management": self.management if there else None,
            "log": str(self.log),
        }

    def __str__(self) -> str:
        if self.word == "stopped":
            return "stopped"
        api = f", management {self.management}" if self.management else ""
        return f"{self.word}  {self.url} (process {self.pid}{api}; log {self.log})"


def _state(server: Server) -> State:
    record = load(record_of(server.home))
    if not record.left:
        return State("stopped", "", 0, None, server.log)
    word = "running" if record.alive and server.answers() else "silent"
    management = record.ports.get("management")
    url = None if management is None else f"http://{ports.HOST}:{management}"
    return State(word, server.url, record.processes[-1].pid, url, server.log)


def _both(folder: Path) -> tuple[Server, ...]:
    """The two as they were started."""
    return tuple(_servers(folder, REDIS_PORT, AMQP_PORT, None).values())


def _servers(folder: Path, redis: int, amqp: int, management: int | None) -> dict[str, Server]:
    """The two, by section of the configuration; on these ports, unless they run on others."""

    def port(home: Path, chosen: int) -> int:
        record = load(record_of(home))
        return record.ports.get("main", chosen) if record.left else chosen

    store, broker = folder / "redis", folder / "rabbitmq"
    return {
        "store": PrivateRedis(store, port(store, redis)),
        "broker": PrivateRabbitMQ(broker, port(broker, amqp), management),
    }


def _running(server: Server) -> Record | None:
    """The record of a server that runs, on whatever port."""
    record = load(record_of(server.home))
    return record if record.alive else None


def _chosen(url: str, scheme: str, default: int, option: int | None) -> int:
    """The port: the one asked for, or that of a plain URL on loopback, or the usual one."""
    if option is not None:
        return option or ports.free_port()
    parts, port = _split(url)
    here = parts.scheme == scheme and _is_loopback(parts.hostname or "")
    return port or default if here else default


def _split(url: str) -> tuple[SplitResult, int | None]:
    parts = urlsplit(url)
    try:
        return parts, parts.port
    except ValueError:
        return parts, None


def _is_loopback(host: str) -> bool:
    return host in LOOPBACK or host.startswith("127.")


def _management(config: FederationConfig, option: int | None) -> int | None:
    """A port for the management API: the one asked for or configured, or the next free one."""
    if option is not None:
        return option or ports.free_port()
    parts, port = _split(config.broker.management or "")
    first = port if port and _is_loopback(parts.hostname or "") else MANAGEMENT_PORT
    return next((p for p in range(first, first + NEAR) if ports.is_free(p)), None)


def _check_port(section: str, port: int) -> None:
    """Refuse a port that is taken, and say by what.

    Raises:
        ConfigError: It is.
    """
    if ports.is_free(port):
        return
    who = ports.holder(port) or "another program"
    if _is_service(section, port):
        who += f", which serves as {section} as it is"
    raise ConfigError(
        f"port {port} is taken by {who}",
        f"use that one, or choose another port: --{section}-port 0 takes any free one",
    )


def _is_service(section: str, port: int) -> bool:
    try:
        if section == "broker":
            probe(f"amqp://guest:guest@{ports.HOST}:{port}/", timeout_s=2.0)
        else:
            connect(f"redis://{ports.HOST}:{port}/0", timeout_s=2.0)
    except FcclError:
        return False
    return True


def _tell_urls(config: FederationConfig, found: dict[str, Record]) -> None:
    broker = PrivateRabbitMQ(Path(), found["RabbitMQ"].ports["main"]).url
    store = PrivateRedis(Path(), found["Redis"].ports["main"]).url
    click.echo(f"broker  {broker}")
    click.echo(f"store   {store}")
    variables = {}
    if _same(config.broker.url) != _same(broker):
        variables["FCCL_BROKER__URL"] = broker
    if _same(config.store.url) != _same(store):
        variables["FCCL_STORE__URL"] = store
    api = found["RabbitMQ"].ports.get("management")
    if api is None:
        click.echo(
            "RabbitMQ has no management API here (its plugin is missing, or no port is free)"
        )
    elif _split(config.broker.management or f"//_:{MANAGEMENT_PORT}")[1] != api:
        variables["FCCL_BROKER__MANAGEMENT"] = f"http://{ports.HOST}:{api}"
    if variables:
        click.echo("these are not the configured ones; in every terminal that uses them:")
        for name, value in variables.items():
            click.echo(f"  export {name}={shlex.quote(value)}")


def _same(url: str) -> tuple[object, ...]:
    """What two URLs of one server have in common, however they are written."""
    parts, port = _split(url)
    host = ports.HOST if _is_loopback(parts.hostname or "") else parts.hostname
    path = parts.path.strip("/").lower()
    if parts.scheme == "redis":
        return parts.scheme, parts.username, parts.password, host, port or REDIS_PORT, path or "0"
    path = "" if path == "%2f" else path
    user, password = parts.username or "guest", parts.password or "guest"
    return parts.scheme, user, password, host, port or AMQP_PORT, path


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second `fccl services` out of the folder meanwhile."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(folder / "lock", timeout=0):
            yield
    except Timeout:
        raise ConfigError(
            f"another `fccl services` is at work in {folder}", "wait until it is done"
        ) from None
    except OSError as error:
        where = error.filename or folder
        raise ConfigError(
            f"{where}: {error.strerror}", "name a writable place with --dir"
        ) from None

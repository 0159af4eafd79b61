"""`fccl services`: a private RabbitMQ and Redis on this machine, for users without Docker.

They listen on loopback (with --tls for other machines too), outlive the terminal, and keep all
files in one folder. Running servers are
recognised by process id and start time (`cli.services.processes`), so that `down` ends what `up`
started and nothing else.
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

import click
from rich.console import Console

from broker.rabbit.probe import probe
from cli.options import config_option, find_config
from cli.services import ports, servers
from cli.services.open_servers import (
    OpenServers,
    load_settings,
    make_settings,
    write_environment,
)
from cli.services.processes import ProcessRecord, load
from cli.services.rabbitmq_server import PrivateRabbitMQ
from cli.services.redis_server import PrivateRedis
from cli.services.servers import Server, record_path
from common.config import loader
from common.config.config import FederationConfig
from common.errors import ConfigError, FcclError
from common.start_lock import only_start
from common.store.store import connect
from common.text import one_line
from common.urls import BROKER, HTTP, STORE, ServerUrl, parse_url

AMQP_PORT, REDIS_PORT, MANAGEMENT_PORT = 5672, 6379, 15672
MANAGEMENT_PORTS = 20  # tried in turn, from 15672 on
NOT_RUNNING = 1

F = TypeVar("F", bound=Callable[..., object])


@click.group()
def command() -> None:
    """Run a private RabbitMQ and Redis on this machine, from the binaries on PATH.

    This is for machines without Docker. The servers listen on loopback only, except with --tls, and
    keep running when the terminal is closed.
    """


def _folder_option(function: F) -> F:
    return click.option(
        "--dir",
        "folder",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path(".services"),
        help="Folder of their data and logs [.services].",
    )(function)


@command.command()
@config_option
@_folder_option
@click.option(
    "--broker-port", type=click.IntRange(0, 65535), help="Port of RabbitMQ; 0 picks a free one."
)
@click.option(
    "--store-port", type=click.IntRange(0, 65535), help="Port of Redis; 0 picks a free one."
)
@click.option(
    "--management-port",
    type=click.IntRange(0, 65535),
    help="Port of RabbitMQ's management API; 0 picks a free one [15672, or the next free one].",
)
@click.option(
    "--tls",
    "certificates",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of `fccl certs`: let other machines reach both servers, over TLS.",
)
@click.option(
    "--tls-ports",
    type=(click.IntRange(0, 65535), click.IntRange(0, 65535)),
    default=(5671, 6380),
    show_default=True,
    help="Ports of RabbitMQ and Redis for --tls; 0 picks a free one.",
)
def up(
    config_path: Path | None,
    folder: Path,
    broker_port: int | None,
    store_port: int | None,
    management_port: int | None,
    certificates: Path | None,
    tls_ports: tuple[int, int],
) -> None:
    """Start both servers on the ports of broker.url and store.url; repeating it is harmless.

    With --tls, Redis has a password, and `env` in the folder has the addresses and passwords for
    the commands of this machine.
    """
    config = loader.load(find_config(config_path))
    amqp = choose_port(config.broker.url, "amqp", AMQP_PORT, broker_port)
    redis = choose_port(config.store.url, "redis", REDIS_PORT, store_port)
    with _locked(folder):
        if certificates is not None:
            _open_to_others(folder, certificates, tls_ports)
        sections = _servers(folder, redis, amqp, _management(config, management_port))
        missing = {name: each for name, each in sections.items() if _running(each) is None}
        for server in missing.values():
            server.find()
        for name, server in missing.items():
            _check_port(name, server.port)
        records = _start_both(tuple(sections.values()))
    if (opened := load_settings(folder)) is not None:
        _print_environment(folder, opened, sections, records)
    else:
        _print_urls(config, records)


def _open_to_others(folder: Path, certificates: Path, ports_: tuple[int, int]) -> None:
    """Keep the settings of `--tls`; refuse to change those of servers that run."""
    running = any(_running(server) for server in _both(folder))
    known = load_settings(folder)
    if running and known is not None:
        return
    if running:
        raise ConfigError("the servers run without TLS", "run `fccl services down` first")
    broker, store = (port or ports.free_port() for port in ports_)
    make_settings(folder, certificates, broker, store)


def _print_environment(
    folder: Path,
    opened: OpenServers,
    sections: dict[str, Server],
    records: dict[str, ProcessRecord],
) -> None:
    api = records["RabbitMQ"].ports.get("management")
    management = None if api is None else f"http://{ports.HOST}:{api}"
    variables = opened.environment(sections["store"].url, management)
    path = write_environment(folder, variables)
    click.echo(f"broker  {variables['FCCL_BROKER__PUBLIC_URL']} for other machines")
    click.echo(f"store   {variables['FCCL_STORE__PUBLIC_URL']} for other machines")
    click.echo("addresses and passwords for this machine; in every terminal that uses them:")
    click.echo(f"  . {shlex.quote(str(path))}")


def _start_both(both: tuple[Server, ...]) -> dict[str, ProcessRecord]:
    """Start the servers that do not run; if one fails, stop those that were started."""
    started: list[Server] = []
    try:
        for server in both:
            if (record := _running(server)) is not None:
                # An earlier `up` may have been killed before it was ready.
                servers.start(server, on_log=_print_log)
                click.echo(f"{server.name} runs already (process {record.processes[-1].pid})")
                continue
            started.append(server)
            _start(server)
    except BaseException:
        for server in started:
            servers.stop(server)
        raise
    return {server.name: load(record_path(server.home)) for server in both}


def _start(server: Server) -> None:
    console = Console(highlight=False)
    text = f"waiting for {server.name} …"
    if not console.is_terminal:
        click.echo(text)
    with console.status(text) as status:
        servers.start(server, lambda seconds: status.update(f"{text} {seconds:.0f} s"), _print_log)
    click.echo(
        f"{server.name} is ready (process {load(record_path(server.home)).processes[-1].pid})"
    )


def _print_log(line: str) -> None:
    click.echo(f"  {one_line(line)}", err=True)


@command.command()
@_folder_option
def down(folder: Path) -> None:
    """Stop what `up` started from this folder; the data stays."""
    both = _both(folder)
    if not any(load(record_path(server.home)).running for server in both):
        click.echo(f"nothing runs from {folder.absolute()}")
        return
    with _locked(folder):
        for server in reversed(both):
            with Console().status(f"stopping {server.name} …"):
                stopped = servers.stop(server)
            if stopped:
                click.echo(f"stopped {server.name}")


@command.command()
@_folder_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(folder: Path, as_json: bool) -> None:
    """Show whether the servers run; the exit code is 1 if one does not."""
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
    """State of one server."""

    word: str  # `running`, `silent` (the process runs, but accepts no login) or `stopped`
    url: str
    pid: int
    management: str | None
    log: Path

    def fields(self) -> dict[str, object]:
        """Return the values for `--json`."""
        present = self.word != "stopped"
        return {
            "state": self.word,
            "url": self.url if present else None,
            "pid": self.pid if present else None,
            "management": self.management if present else None,
            "log": str(self.log),
        }

    def __str__(self) -> str:
        if self.word == "stopped":
            return "stopped"
        api = f", management {self.management}" if self.management else ""
        return f"{self.word}  {self.url} (process {self.pid}{api}; log {self.log})"


def _state(server: Server) -> State:
    record = load(record_path(server.home))
    if not record.running:
        return State("stopped", "", 0, None, server.log)
    word = "running" if record.alive and server.answers() else "silent"
    management = record.ports.get("management")
    url = None if management is None else f"http://{ports.HOST}:{management}"
    return State(word, _without_password(server.url), record.processes[-1].pid, url, server.log)


def _without_password(url: str) -> str:
    """Return a URL without a password that is not the default of a server on loopback."""
    server = parse_url(url, BROKER if url.startswith("amqp") else STORE)
    return url if server.user == server.password else server.shown


def _both(folder: Path) -> tuple[Server, ...]:
    return tuple(_servers(folder, REDIS_PORT, AMQP_PORT, None).values())


def _servers(folder: Path, redis: int, amqp: int, management: int | None) -> dict[str, Server]:
    """Return the servers by configuration section; one that runs keeps its port."""

    def port(home: Path, chosen: int) -> int:
        record = load(record_path(home))
        return record.ports.get("main", chosen) if record.running else chosen

    store, broker = folder / "redis", folder / "rabbitmq"
    if (opened := load_settings(folder)) is not None:
        tls = opened.files("redis")
        return {
            "store": PrivateRedis(store, tls.port, tls, password=opened.password),
            "broker": PrivateRabbitMQ(
                broker, port(broker, amqp), management, opened.files("rabbitmq")
            ),
        }
    return {
        "store": PrivateRedis(store, port(store, redis)),
        "broker": PrivateRabbitMQ(broker, port(broker, amqp), management),
    }


def _running(server: Server) -> ProcessRecord | None:
    """Return the record of a server if it runs."""
    record = load(record_path(server.home))
    return record if record.alive else None


def choose_port(url: str, scheme: str, default: int, option: int | None) -> int:
    """Return the port of the option, else of a plain URL on loopback, else the default."""
    if option is not None:
        return option or ports.free_port()
    server = parse_url(url, BROKER if scheme == "amqp" else STORE)
    return server.port if server.scheme == scheme and server.is_loopback else default


def _management(config: FederationConfig, option: int | None) -> int | None:
    """Return the management port of the option or the configuration, or the next free one."""
    if option is not None:
        return option or ports.free_port()
    server = _configured_management(config)
    first = server.port if server.is_loopback else MANAGEMENT_PORT
    return next((p for p in range(first, first + MANAGEMENT_PORTS) if ports.is_free(p)), None)


def _configured_management(config: FederationConfig) -> ServerUrl:
    return parse_url(config.broker.management or f"http://{ports.HOST}:{MANAGEMENT_PORT}", HTTP)


def _check_port(section: str, port: int) -> None:
    if ports.is_free(port):
        return
    holder = ports.port_holder(port) or "another program"
    if _is_service(section, port):
        holder += f", which can serve as the {section}"
    raise ConfigError(
        f"port {port} is taken by {holder}",
        f"use that one, or choose another port: --{section}-port 0 picks a free one",
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


def _print_urls(config: FederationConfig, records: dict[str, ProcessRecord]) -> None:
    broker = PrivateRabbitMQ(Path(), records["RabbitMQ"].ports["main"]).url
    store = PrivateRedis(Path(), records["Redis"].ports["main"]).url
    click.echo(f"broker  {broker}")
    click.echo(f"store   {store}")
    variables = {}
    if server_key(config.broker.url) != server_key(broker):
        variables["FCCL_BROKER__URL"] = broker
    if server_key(config.store.url) != server_key(store):
        variables["FCCL_STORE__URL"] = store
    api = records["RabbitMQ"].ports.get("management")
    if api is None:
        click.echo(
            "RabbitMQ has no management API here (its plugin is missing, or no port is free)"
        )
    elif _configured_management(config).port != api:
        variables["FCCL_BROKER__MANAGEMENT"] = f"http://{ports.HOST}:{api}"
    if variables:
        click.echo("these are not the configured URLs; set in every terminal that uses them:")
        for name, value in variables.items():
            click.echo(f"  export {name}={shlex.quote(value)}")


def server_key(url: str) -> tuple[object, ...]:
    """Return a key that is equal for all spellings of the URL of one server."""
    kind = BROKER if url.startswith("amqp") else STORE
    server = parse_url(url, kind)
    host = ports.HOST if server.is_loopback else server.host
    if kind is STORE:
        path = server.path.strip("/") or "0"
        return server.scheme, server.user, server.password, host, server.port, path
    user, password = server.user or "guest", server.password or "guest"
    return server.scheme, user, password, host, server.port, server.vhost


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder against a second `fccl services` while the block runs."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with only_start(folder, folder / "lock"):
            yield
    except OSError as error:
        where = error.filename or folder
        raise ConfigError(
            f"{where}: {error.strerror}", "name a writable folder with --dir"
        ) from None

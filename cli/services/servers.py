"""Private RabbitMQ and Redis servers, started from the binaries on this machine.

They listen on loopback only, keep everything in one folder each, and share nothing with another
RabbitMQ or Redis of the machine: RabbitMQ has its own cookie and its own port mapper (epmd).
`fccl services` starts them for users, and tests start them, too.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from broker.rabbit.probe import probe
from cli.services.ports import HOST, free_port
from cli.services.processes import (
    Process,
    ProcessRecord,
    defer_interrupt,
    find_process,
    load,
    spawn,
    wait_gone,
)
from common.errors import BrokerError, ConfigError, FcclError, StoreError
from common.store.store import connect

START_SECONDS = 90.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.05
TAIL_LINES = 15

_INSTALL = (
    "install {0} (Debian, Ubuntu: sudo apt-get install {1}; macOS: brew install {2}), "
    "or use Docker: docker compose up -d --wait"
)
_SCRIPTS = (
    # Debian's script on PATH switches the user and refuses others; it calls one of these.
    Path("/usr/lib/rabbitmq/bin/rabbitmq-server"),
    Path("/usr/lib/rabbitmq/lib/rabbitmq_server/sbin/rabbitmq-server"),
)


@dataclass(frozen=True)
class TlsFiles:
    """Certificate and key of a server, and the port on which it uses them."""

    port: int
    ca: Path
    certificate: Path
    key: Path


class Server(Protocol):
    """A private server. `start` and `stop` may be called by different processes."""

    name: ClassVar[str]
    home: Path
    port: int
    error: ClassVar[type[FcclError]]

    @property
    def url(self) -> str:
        """URL with the credentials of its user."""

    @property
    def log(self) -> Path:
        """Log file of its output."""

    @classmethod
    def find(cls) -> object:
        """Return the binaries; an `FcclError` names a missing one and how to install it."""

    def launch(self) -> None:
        """Start the processes, and return before they are ready."""

    def answers(self) -> bool:
        """Return whether the server accepts a login."""

    def end(self, record: ProcessRecord, how: signal.Signals) -> None:
        """Signal the processes, and return when they are gone."""


class PrivateRedis:
    """Redis without a password. Its content can be rebuilt, so nothing is kept on the disk.

    Args:
        home: Folder of the server.
        port: Port for plain connections.
        tls: Listen with TLS as well.
        durable: Keep every write on the disk all the same.
        options: Further options of redis-server.
    """

    name: ClassVar[str] = "Redis"
    error: ClassVar[type[FcclError]] = StoreError

    def __init__(
        self,
        home: Path,
        port: int,
        tls: TlsFiles | None = None,
        durable: bool = False,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home.absolute()
        self.port = port
        self._tls = tls
        self._durable = durable
        self._more = dict(options or {})

    @property
    def url(self) -> str:
        """See `Server.url`."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def log(self) -> Path:
        """See `Server.log`."""
        return self.home / "redis.log"

    def launch(self) -> None:
        """See `Server.launch`."""
        binary = self.find()
        _make(self.home)
        words = [word for key, value in self._options().items() for word in (f"--{key}", value)]
        with defer_interrupt():
            process = spawn("redis-server", [binary, *words], os.environ, self.log)
            ProcessRecord({"main": self.port}, (process,)).save(record_path(self.home))

    @classmethod
    def find(cls) -> str:
        """Return the path of redis-server.

        Raises:
            StoreError: It is not on PATH.
        """
        if binary := shutil.which("redis-server"):
            return binary
        raise StoreError(
            "redis-server is not on PATH", _INSTALL.format("Redis", "redis-server", "redis")
        )

    def _options(self) -> dict[str, str]:
        options = {
            "port": str(self.port),
            "bind": HOST,
            "dir": str(self.home),
            "save": "",
            "appendonly": "yes" if self._durable else "no",
            "maxmemory-policy": "noeviction",  # a full store must refuse writes, not drop adapters
        }
        if self._tls is not None:
            options |= {
                "tls-port": str(self._tls.port),
                "tls-ca-cert-file": str(self._tls.ca),
                "tls-cert-file": str(self._tls.certificate),
                "tls-key-file": str(self._tls.key),
                "tls-auth-clients": "no",
            }
        return options | self._more

    def answers(self) -> bool:
        """See `Server.answers`."""
        try:
            connect(self.url, timeout_s=1.0)
        except StoreError:
            return False
        return True

    def end(self, record: ProcessRecord, how: signal.Signals) -> None:
        """See `Server.end`."""
        _end(record.running, how)


class PrivateRabbitMQ:
    """RabbitMQ node for the user guest, on loopback. Its queues are on the disk: they hold updates.

    Args:
        home: Folder of the server.
        port: Port for plain connections.
        management: Port of the management API; there is none without a port or without the plugin.
        tls: Listen with TLS as well.
        free_bytes: The node accepts no messages while the disk has less free space.
    """

    name: ClassVar[str] = "RabbitMQ"
    error: ClassVar[type[FcclError]] = BrokerError

    def __init__(
        self,
        home: Path,
        port: int,
        management: int | None = None,
        tls: TlsFiles | None = None,
        free_bytes: int = 256 << 20,
    ) -> None:
        self.home = home.absolute()
        self.port = port
        self.management = management
        self._tls = tls
        self._free_bytes = free_bytes

    @property
    def url(self) -> str:
        """See `Server.url`."""
        return f"amqp://guest:guest@{HOST}:{self.port}/"

    @property
    def management_url(self) -> str | None:
        """URL of the management API, which `fccl invite` needs; None if there is none."""
        return None if self.management is None else f"http://{HOST}:{self.management}"

    @property
    def log(self) -> Path:
        """See `Server.log`."""
        return self.home / "rabbitmq.log"

    def launch(self) -> None:
        """See `Server.launch`."""
        script, epmd = self.find()
        _make(self.home)
        # With a port mapper of its own, the node never meets another node of the same name.
        mapper_port, node_port = free_port(), free_port()
        environment = self._environment(mapper_port, node_port, self._write_settings(script))
        ports = {"main": self.port}
        if self.management is not None:
            ports["management"] = self.management
        pid_file = self.home / "pid"
        pid_file.unlink(missing_ok=True)
        started: list[Process] = []
        try:
            mapping = [epmd, "-port", str(mapper_port), "-address", HOST]
            with defer_interrupt():
                started.append(spawn("epmd", mapping, environment, self.log))
                starter = spawn("rabbitmq-server", [script], environment, self.log)
                started.append(starter)
            # The script starts the node as its child, which writes its process id to a file.
            deadline = time.monotonic() + START_SECONDS
            node = None
            while node is None and starter.alive and time.monotonic() < deadline:
                ProcessRecord(ports, tuple(started)).save(record_path(self.home))
                time.sleep(POLL_SECONDS)
                node = _node(pid_file)
            started += [] if node is None else [node]
        finally:  # an interruption must leave none unrecorded
            ProcessRecord(ports, tuple(started)).save(record_path(self.home))

    @classmethod
    def find(cls) -> tuple[str, str]:
        """Return the paths of the script that starts a node, and of epmd.

        Raises:
            BrokerError: One of them is not on PATH.
        """
        scripts = [str(path) for path in _SCRIPTS if path.exists()]
        script = scripts[0] if scripts else shutil.which("rabbitmq-server")
        epmd = shutil.which("epmd")
        if script is None or epmd is None:
            missing = "rabbitmq-server" if script is None else "epmd (a part of Erlang)"
            raise BrokerError(
                f"{missing} is not on PATH",
                _INSTALL.format("RabbitMQ", "rabbitmq-server", "rabbitmq"),
            )
        return script, epmd

    def _write_settings(self, script: str) -> Path:
        lines = [f"disk_free_limit.absolute = {self._free_bytes}"]
        if self.management is not None and not _has_management(Path(script)):
            self.management = None
        if self.management is not None:
            lines += [f"management.tcp.ip = {HOST}", f"management.tcp.port = {self.management}"]
        if self._tls is not None:
            lines += [
                f"listeners.ssl.default = {HOST}:{self._tls.port}",
                f"ssl_options.cacertfile = {self._tls.ca}",
                f"ssl_options.certfile = {self._tls.certificate}",
                f"ssl_options.keyfile = {self._tls.key}",
                "ssl_options.verify = verify_none",  # users log in with a password
            ]
        plugins = "rabbitmq_management" if self.management is not None else ""
        (self.home / "enabled_plugins").write_text(f"[{plugins}].\n")
        path = self.home / "rabbitmq.conf"
        path.write_text("\n".join(lines) + "\n")
        return path

    def _environment(self, mapper_port: int, node_port: int, settings: Path) -> dict[str, str]:
        home = self.home
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("RABBITMQ_")}
        inherited.pop("NOTIFY_SOCKET", None)  # this is not the service that systemd started
        return inherited | {
            "HOME": str(home),  # where the cookie is
            "ERL_EPMD_PORT": str(mapper_port),
            "ERL_EPMD_ADDRESS": HOST,
            # Otherwise Erlang starts a port mapper wherever it finds none, for example when it is
            # stopped while it starts, and leaves that behind. Ours is there already.
            "ERL_FLAGS": "-start_epmd false",
            "RABBITMQ_NODENAME": "fccl@localhost",  # names the folder of its data
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(node_port),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_CONFIG_FILE": str(settings),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(home / "generated"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            # Schedulers that spin while idle would take the cores from the training beside them.
            # A distribution port that is reachable from other machines would be a security hole.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+sbwt none +sbwtdcpu none +sbwtdio none"
                " -kernel inet_dist_use_interface {127,0,0,1}"
            ),
        }

    def answers(self) -> bool:
        """See `Server.answers`. The port opens before the node accepts logins."""
        try:
            with socket.create_connection((HOST, self.port), timeout=1.0):
                pass
            probe(self.url, timeout_s=2.0)
        except (OSError, BrokerError):
            return False
        return True

    def end(self, record: ProcessRecord, how: signal.Signals) -> None:
        """See `Server.end`. The node goes first; the script that started it follows it."""
        by_role = {process.role: process for process in record.running}
        node = by_role.get("node") or _node(self.home / "pid", by_role.get("rabbitmq-server"))
        nodes = tuple(p for p in (node, by_role.get("rabbitmq-server")) if p is not None)
        if node is not None:
            node.signal(how)
        elif nodes:
            nodes[0].signal_session(signal.SIGKILL)  # it is not a node yet and has no data to lose
        if not wait_gone(nodes, STOP_SECONDS):
            for process in nodes:
                process.signal(signal.SIGKILL)
            wait_gone(nodes, STOP_SECONDS)
        _end(tuple(p for p in record.running if p.role == "epmd"), signal.SIGTERM)


def record_path(home: Path) -> Path:
    """Return the file that records the processes of a server."""
    return home / "processes.json"


def start(server: Server, on_wait: Callable[[float], None] = lambda seconds: None) -> None:
    """Start a server, and return when it accepts a login.

    Args:
        server: The server; one that runs already is only waited for.
        on_wait: Called repeatedly with the number of seconds that it has taken.

    Raises:
        FcclError: The server did not become ready. The message has the last lines of its log. The
            server is stopped again if it was started here.
    """
    if load(record_path(server.home)).alive:
        _wait(server, on_wait)
        return
    stop(server)  # what is left of an earlier one
    try:
        server.launch()
        _wait(server, on_wait)
    except BaseException:
        stop(server, signal.SIGKILL)
        raise


def _wait(server: Server, on_wait: Callable[[float], None]) -> None:
    began = time.monotonic()
    while not server.answers():
        passed = time.monotonic() - began
        if passed > START_SECONDS or not load(record_path(server.home)).alive:
            raise server.error(
                f"{server.name} did not become ready:\n{tail(server.log)}",
                f"the whole log is {server.log}",
            )
        on_wait(passed)
        time.sleep(POLL_SECONDS)


def stop(server: Server, how: signal.Signals = signal.SIGTERM) -> bool:
    """Stop what `start` started, and return whether there was anything to stop.

    Raises:
        FcclError: The server does not end.
    """
    record = load(record_path(server.home))
    if not record.running:
        record_path(server.home).unlink(missing_ok=True)
        return False
    server.end(record, how)
    if running := record.running:
        raise server.error(
            f"{server.name} does not end (process {running[0].pid})", f"see {server.log}"
        )
    record_path(server.home).unlink(missing_ok=True)
    return True


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a log."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:])


def _make(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"{home}: {error.strerror}", "name a writable directory") from None


def _node(pid_file: Path, starter: Process | None = None) -> Process | None:
    """Return the Erlang node that wrote a pid file; only in the session of `starter`, if given."""
    try:
        pid = int(pid_file.read_text())
        if starter is not None and os.getsid(pid) != starter.pid:
            return None
    except (OSError, ValueError):
        return None
    return find_process("node", pid)


def _has_management(script: Path) -> bool:
    """Return whether this RabbitMQ has the management plugin; only minimal packages lack it."""
    home = script.resolve().parent.parent
    places = (home / "plugins", home / "lib/rabbitmq/plugins", Path("/usr/lib/rabbitmq/plugins"))
    found = [*home.glob("lib/rabbitmq_server-*/plugins"), *places]
    return any(list(place.glob("rabbitmq_management-*")) for place in found)


def _end(processes: tuple[Process, ...], how: signal.Signals) -> None:
    for process in processes:
        process.signal(how)
    if not wait_gone(processes, STOP_SECONDS):
        for process in processes:
            process.signal(signal.SIGKILL)
        wait_gone(processes, STOP_SECONDS)

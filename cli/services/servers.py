"""A RabbitMQ and a Redis of one's own, from the binaries on this machine.

They listen on loopback only, keep everything in one folder each, and share nothing with another
RabbitMQ or Redis here: RabbitMQ has its own cookie and its own port mapper (epmd). `fccl services`
starts them for people; tests start them, too.
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
from cli.services.processes import Process, Record, known, load, spawn, unbroken, wait_gone
from common.errors import BrokerError, ConfigError, FcclError, StoreError
from common.store.store import connect

START_SECONDS = 90.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.05
TAIL_LINES = 15

_GET = (
    "install {0} (Debian, Ubuntu: sudo apt-get install {1}; macOS: brew install {2}), "
    "or use Docker: docker compose up -d --wait"
)
_SCRIPTS = (
    # Debian's script on PATH switches user and refuses others; this is the one behind it.
    Path("/usr/lib/rabbitmq/bin/rabbitmq-server"),
    Path("/usr/lib/rabbitmq/lib/rabbitmq_server/sbin/rabbitmq-server"),
)


@dataclass(frozen=True)
class Tls:
    """A server's certificate and key, and the port on which it uses them."""

    port: int
    ca: Path
    certificate: Path
    key: Path


class Server(Protocol):
    """One of the two. `start` and `stop` may be called by different processes."""

    name: ClassVar[str]
    home: Path
    port: int
    error: ClassVar[type[FcclError]]

    @property
    def url(self) -> str:
        """Where it is, and as whom."""

    @property
    def log(self) -> Path:
        """What it says while it starts."""

    @classmethod
    def find(cls) -> object:
        """The binaries; an `FcclError` says which one is missing, and how to get it."""

    def launch(self) -> None:
        """Start the processes; returns before they are ready."""

    def answers(self) -> bool:
        """Whether it takes a login."""

    def end(self, record: Record, how: signal.Signals) -> None:
        """Signal its processes, and return when they are gone."""


class PrivateRedis:
    """A Redis without a password; what it holds can be rebuilt, so nothing is on the disk.

    Args:
        home: Its folder.
        port: Where it listens.
        tls: Listen with TLS, too.
        durable: Keep every write on the disk all the same.
        options: More of redis-server's options.
    """

    name: ClassVar[str] = "Redis"
    error: ClassVar[type[FcclError]] = StoreError

    def __init__(
        self,
        home: Path,
        port: int,
        tls: Tls | None = None,
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
        with unbroken():
            process = spawn("redis-server", [binary, *words], os.environ, self.log)
            Record({"main": self.port}, (process,)).save(record_of(self.home))

    @classmethod
    def find(cls) -> str:
        """The binary.

        Raises:
            StoreError: There is none; says how to get it.
        """
        if binary := shutil.which("redis-server"):
            return binary
        raise StoreError(
            "redis-server is not on PATH", _GET.format("Redis", "redis-server", "redis")
        )

    def _options(self) -> dict[str, str]:
        options = {
            "port": str(self.port),
            "bind": HOST,
            "dir": str(self.home),
            "save": "",
            "appendonly": "yes" if self._durable else "no",
            "maxmemory-policy": "noeviction",  # a full store must refuse, not forget an adapter
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

    def end(self, record: Record, how: signal.Signals) -> None:
        """See `Server.end`."""
        _end(record.left, how)


class PrivateRabbitMQ:
    """A RabbitMQ node for guest (on loopback); its queues are on the disk, for they hold updates.

    Args:
        home: Its folder.
        port: Where it listens.
        management: The port of its management API; without, or without the plugin, there is none.
        tls: Listen with TLS, too.
        free_bytes: It takes no more messages when the disk has less free space.
    """

    name: ClassVar[str] = "RabbitMQ"
    error: ClassVar[type[FcclError]] = BrokerError

    def __init__(
        self,
        home: Path,
        port: int,
        management: int | None = None,
        tls: Tls | None = None,
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
        """Where `fccl invite` finds the management API."""
        return None if self.management is None else f"http://{HOST}:{self.management}"

    @property
    def log(self) -> Path:
        """See `Server.log`."""
        return self.home / "rabbitmq.log"

    def launch(self) -> None:
        """See `Server.launch`."""
        script, epmd = self.find()
        _make(self.home)
        # A node of its own name would meet itself, were it not for a port mapper of its own.
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
            with unbroken():
                started.append(spawn("epmd", mapping, environment, self.log))
                starter = spawn("rabbitmq-server", [script], environment, self.log)
                started.append(starter)
            # The script starts the node as its child; the node writes down who it is.
            deadline = time.monotonic() + START_SECONDS
            node = None
            while node is None and starter.alive and time.monotonic() < deadline:
                Record(ports, tuple(started)).save(record_of(self.home))
                time.sleep(POLL_SECONDS)
                node = _node(pid_file)
            started += [] if node is None else [node]
        finally:  # an interruption must not make us forget one
            Record(ports, tuple(started)).save(record_of(self.home))

    @classmethod
    def find(cls) -> tuple[str, str]:
        """The script that starts a node, and epmd.

        Raises:
            BrokerError: One is missing; says how to get it.
        """
        scripts = [str(path) for path in _SCRIPTS if path.exists()]
        script = scripts[0] if scripts else shutil.which("rabbitmq-server")
        epmd = shutil.which("epmd")
        if script is None or epmd is None:
            missing = "rabbitmq-server" if script is None else "epmd (a part of Erlang)"
            raise BrokerError(
                f"{missing} is not on PATH", _GET.format("RabbitMQ", "rabbitmq-server", "rabbitmq")
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
                "ssl_options.verify = verify_none",  # users prove themselves by password
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
            "HOME": str(home),  # the cookie lives there
            "ERL_EPMD_PORT": str(mapper_port),
            "ERL_EPMD_ADDRESS": HOST,
            # Erlang starts a port mapper that stays behind wherever it finds none, as when it is
            # stopped while it starts; ours is there already.
            "ERL_FLAGS": "-start_epmd false",
            "RABBITMQ_NODENAME": "fccl@localhost",  # its data lies under this name
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
            # Schedulers that spin while idle would take the cores from the training beside it;
            # and a distribution port that answers beyond loopback is a door.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+sbwt none +sbwtdcpu none +sbwtdio none"
                " -kernel inet_dist_use_interface {127,0,0,1}"
            ),
        }

    def answers(self) -> bool:
        """See `Server.answers`; its port opens before it takes anyone in."""
        try:
            with socket.create_connection((HOST, self.port), timeout=1.0):
                pass
            probe(self.url, timeout_s=2.0)
        except (OSError, BrokerError):
            return False
        return True

    def end(self, record: Record, how: signal.Signals) -> None:
        """See `Server.end`: the node first; the script that started it follows it."""
        by_role = {process.role: process for process in record.left}
        node = by_role.get("node") or _node(self.home / "pid", by_role.get("rabbitmq-server"))
        nodes = tuple(p for p in (node, by_role.get("rabbitmq-server")) if p is not None)
        if node is not None:
            node.signal(how)
        elif nodes:
            nodes[0].signal_session(signal.SIGKILL)  # it is not a node yet: nothing to lose
        if not wait_gone(nodes, STOP_SECONDS):
            for process in nodes:
                process.signal(signal.SIGKILL)
            wait_gone(nodes, STOP_SECONDS)
        _end(tuple(p for p in record.left if p.role == "epmd"), signal.SIGTERM)


def record_of(home: Path) -> Path:
    """The file that says which processes a server has."""
    return home / "processes.json"


def start(server: Server, waiting: Callable[[float], None] = lambda seconds: None) -> None:
    """Start a server, and return when it takes a login.

    Args:
        server: Which; one that runs already is only waited for.
        waiting: Told again and again how many seconds it has taken.

    Raises:
        FcclError: It did not become ready; has the last lines of its log. It is stopped again,
            if it was started here.
    """
    if load(record_of(server.home)).alive:
        _wait(server, waiting)
        return
    stop(server)  # what is left of it
    try:
        server.launch()
        _wait(server, waiting)
    except BaseException:
        stop(server, signal.SIGKILL)
        raise


def _wait(server: Server, waiting: Callable[[float], None]) -> None:
    began = time.monotonic()
    while not server.answers():
        passed = time.monotonic() - began
        if passed > START_SECONDS or not load(record_of(server.home)).alive:
            raise server.error(
                f"{server.name} did not become ready:\n{tail(server.log)}",
                f"the whole log is {server.log}",
            )
        waiting(passed)
        time.sleep(POLL_SECONDS)


def stop(server: Server, how: signal.Signals = signal.SIGTERM) -> bool:
    """Stop what `start` started; whether there was anything to stop.

    Raises:
        FcclError: It does not end.
    """
    record = load(record_of(server.home))
    if not record.left:
        record_of(server.home).unlink(missing_ok=True)
        return False
    server.end(record, how)
    if left := record.left:
        raise server.error(
            f"{server.name} does not end (process {left[0].pid})", f"see {server.log}"
        )
    record_of(server.home).unlink(missing_ok=True)
    return True


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:])


def _make(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"{home}: {error.strerror}", "name a writable place") from None


def _node(pid_file: Path, starter: Process | None = None) -> Process | None:
    """The Erlang node, by the file that it writes; of this script's session, where one is named."""
    try:
        pid = int(pid_file.read_text())
        if starter is not None and os.getsid(pid) != starter.pid:
            return None
    except (OSError, ValueError):
        return None
    return known("node", pid)


def _has_management(script: Path) -> bool:
    """Whether this RabbitMQ comes with its management plugin, as all do but the smallest."""
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

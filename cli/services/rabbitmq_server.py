"""Private RabbitMQ server, with a cookie and a port mapper (epmd) of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import ClassVar

from broker.rabbit.probe import probe
from cli.services.ports import HOST, free_port
from cli.services.processes import (
    Process,
    ProcessRecord,
    defer_interrupt,
    find_process,
    spawn,
    wait_gone,
)
from cli.services.servers import (
    INSTALL_REMEDY,
    POLL_SECONDS,
    START_SECONDS,
    STOP_SECONDS,
    TlsFiles,
    end_processes,
    make_home,
    record_path,
)
from common.errors import BrokerError, FcclError

_SCRIPTS = (
    # Debian's script on PATH switches the user and refuses others; it calls one of these.
    Path("/usr/lib/rabbitmq/bin/rabbitmq-server"),
    Path("/usr/lib/rabbitmq/lib/rabbitmq_server/sbin/rabbitmq-server"),
)


class PrivateRabbitMQ:
    """RabbitMQ node for the user guest, on loopback. Its queues are on the disk: they hold updates.

    There is no management API without a port for it, or without its plugin. The node accepts no
    messages while the disk has less than `free_bytes` free.
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
        return f"amqp://guest:guest@{HOST}:{self.port}/"

    @property
    def management_url(self) -> str | None:
        """URL of the management API, which `fccl invite` needs; None if there is none."""
        return None if self.management is None else f"http://{HOST}:{self.management}"

    @property
    def log(self) -> Path:
        return self.home / "rabbitmq.log"

    def launch(self) -> None:
        script, epmd = self.find()
        make_home(self.home)
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
        """Return the paths of the script that starts a node, and of epmd."""
        scripts = [str(path) for path in _SCRIPTS if path.exists()]
        script = scripts[0] if scripts else shutil.which("rabbitmq-server")
        epmd = shutil.which("epmd")
        if script is None or epmd is None:
            missing = "rabbitmq-server" if script is None else "epmd (a part of Erlang)"
            raise BrokerError(
                f"{missing} is not on PATH",
                INSTALL_REMEDY.format("RabbitMQ", "rabbitmq-server", "rabbitmq"),
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
                f"listeners.ssl.default = {self._tls.host}:{self._tls.port}",
                f"ssl_options.cacertfile = {self._tls.ca}",
                f"ssl_options.certfile = {self._tls.certificate}",
                f"ssl_options.keyfile = {self._tls.key}",
                "ssl_options.verify = verify_none",  # users log in with a password
            ]
        plugins = "rabbitmq_management" if self.management is not None else ""
        (self.home / "enabled_plugins").write_text(f"[{plugins}].\n", encoding="utf-8")
        path = self.home / "rabbitmq.conf"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
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
            # stopped while it starts, and leaves that behind. Ours runs already.
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
        # The port opens before the node accepts logins.
        try:
            with socket.create_connection((HOST, self.port), timeout=1.0):
                pass
            probe(self.url, timeout_s=2.0)
        except (OSError, BrokerError):
            return False
        return True

    def end(self, record: ProcessRecord, number: signal.Signals) -> None:
        # The node goes first; the script that started it follows it.
        by_role = {process.role: process for process in record.running}
        node = by_role.get("node") or _node(self.home / "pid", by_role.get("rabbitmq-server"))
        nodes = tuple(p for p in (node, by_role.get("rabbitmq-server")) if p is not None)
        if node is not None:
            node.signal(number)
        elif nodes:
            nodes[0].signal_session(signal.SIGKILL)  # it is not a node yet and has no data to lose
        if not wait_gone(nodes, STOP_SECONDS):
            for process in nodes:
                process.signal(signal.SIGKILL)
            wait_gone(nodes, STOP_SECONDS)
        end_processes(tuple(p for p in record.running if p.role == "epmd"), signal.SIGTERM)


def _node(pid_file: Path, starter: Process | None = None) -> Process | None:
    """Return the Erlang node that wrote a pid file; with a `starter`, only in its session."""
    try:
        pid = int(pid_file.read_text(encoding="ascii"))
        if starter is not None and os.getsid(pid) != starter.pid:
            return None
    except (OSError, ValueError):
        return None
    return find_process("node", pid)


def _has_management(script: Path) -> bool:
    """Return whether this RabbitMQ has the management plugin; only minimal packages lack it."""
    home = script.resolve().parent.parent
    usual = (home / "plugins", home / "lib/rabbitmq/plugins", Path("/usr/lib/rabbitmq/plugins"))
    folders = [*home.glob("lib/rabbitmq_server-*/plugins"), *usual]
    return any(list(folder.glob("rabbitmq_management-*")) for folder in folders)

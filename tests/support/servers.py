"""Private RabbitMQ and Redis servers for tests and scripts, as `fccl services` runs them.

Each runs from the binaries on this machine, on free loopback ports, with its data in a directory
of its own, independent of other servers. It keeps its port and its data when it is stopped, killed
or restarted; `close` ends it and removes its data.

FCCL_TEST_RABBITMQ_URL and FCCL_TEST_REDIS_URL name servers to use instead. Tests must not restart
those: `restartable` is False.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Protocol

from cli.services import servers
from cli.services.ports import free_port
from cli.services.processes import load
from cli.services.rabbitmq_server import PrivateRabbitMQ as RabbitMQServer
from cli.services.redis_server import PrivateRedis as RedisServer
from common.errors import FcclError

__all__ = ["PrivateRabbitMQ", "PrivateRedis", "Server", "ServerMissing", "free_port"]


class ServerMissing(Exception):
    """Neither a binary nor a URL of a server; the message says what to install or to set."""


class Server(Protocol):
    """Server of a test. Its `url` never changes; `start` does nothing if it runs already."""

    url: str
    restartable: bool

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def restart(self, kill: bool = False) -> None: ...
    def close(self) -> None: ...


def rabbitmq() -> Server:
    """Return a running RabbitMQ: that of FCCL_TEST_RABBITMQ_URL, or a private one."""
    url = os.environ.get("FCCL_TEST_RABBITMQ_URL")
    return ExternalServer(url) if url else _started(PrivateRabbitMQ())


def redis_server() -> Server:
    """Return a running Redis: that of FCCL_TEST_REDIS_URL, or a private one."""
    url = os.environ.get("FCCL_TEST_REDIS_URL")
    return ExternalServer(url) if url else _started(PrivateRedis())


def _started(server: Server) -> Server:
    try:
        server.start()
    except BaseException:
        server.close()
        raise
    return server


class ExternalServer:
    """Server that the tests must not stop."""

    restartable = False

    def __init__(self, url: str) -> None:
        self.url = url

    def start(self) -> None: ...

    def close(self) -> None: ...

    def stop(self) -> None:
        raise RuntimeError("not ours to stop")

    def kill(self) -> None:
        raise RuntimeError("not ours to kill")

    def restart(self, kill: bool = False) -> None:
        raise RuntimeError("not ours to restart")


class _Private:
    """Server of `fccl services` in a temporary directory."""

    restartable = True

    def __init__(self, server: servers.Server) -> None:
        self._server = server
        self.url = server.url

    def start(self) -> None:
        servers.start(self._server)

    def stop(self) -> None:
        servers.stop(self._server)

    def kill(self) -> None:
        servers.stop(self._server, signal.SIGKILL)

    def pause(self) -> None:
        """Freeze its processes, so that connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for process in load(servers.record_path(self._server.home)).running:
            process.signal(number)

    def restart(self, kill: bool = False) -> None:
        """Stop (or kill) it, and start it again on the same port with the same data."""
        self.kill() if kill else self.stop()
        self.start()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._server.home, ignore_errors=True)


class PrivateRedis(_Private):
    """Redis that writes every command to its append-only file."""

    def __init__(self) -> None:
        _find(RedisServer, "FCCL_TEST_REDIS_URL")
        home = Path(tempfile.mkdtemp(prefix="fccl-redis-"))
        super().__init__(RedisServer(home, free_port(), durable=True))

    def empty(self) -> None:
        """Kill it, and remove its data."""
        self.kill()
        shutil.rmtree(self._server.home / "appendonlydir", ignore_errors=True)


class PrivateRabbitMQ(_Private):
    """RabbitMQ node with a port mapper (epmd) of its own, so that no process remains."""

    def __init__(self) -> None:
        _find(RabbitMQServer, "FCCL_TEST_RABBITMQ_URL")
        home = Path(tempfile.mkdtemp(prefix="fccl-rabbitmq-"))
        super().__init__(RabbitMQServer(home, free_port(), free_bytes=16 << 20))

    def control(self, *command: str) -> None:
        """Run `rabbitmqctl` on this node, in the node's own environment."""
        [node] = [
            p for p in load(servers.record_path(self._server.home)).running if p.role == "node"
        ]
        raw = Path(f"/proc/{node.pid}/environ").read_bytes().rstrip(b"\0")
        environment = dict(line.split(b"=", 1) for line in raw.split(b"\0"))
        script = Path(RabbitMQServer.find()[0]).with_name("rabbitmqctl")
        subprocess.run([str(script), *command], env=environment, check=True, capture_output=True)


def find_binaries() -> None:
    """Raise `ServerMissing` if a binary is missing, whichever servers the variables name."""
    for server in (RedisServer, RabbitMQServer):
        try:
            server.find()
        except FcclError as error:
            raise ServerMissing(str(error)) from None


def _find(server: type[servers.Server], variable: str) -> None:
    try:
        server.find()
    except FcclError as error:
        raise ServerMissing(f"{error}, or set {variable}") from None

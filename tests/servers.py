"""Private RabbitMQ and Redis servers for tests and scripts.

Each runs from the binaries on this machine, on free loopback ports, with its data in a directory
of its own, beside whatever else runs here. A server keeps its port and its data when it is
stopped, killed or restarted; `close` ends it and removes its data. Only processes that were
started here are signalled, by their own ids.

FCCL_TEST_RABBITMQ_URL and FCCL_TEST_REDIS_URL name servers to use instead. Those are not ours to
restart: `restartable` says so.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pika
import redis

START_SECONDS = 60.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.02

_RABBITMQ_SCRIPTS = (
    # Debian's script on PATH switches user and refuses others; this is the one behind it.
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "/usr/lib/rabbitmq/lib/rabbitmq_server/sbin/rabbitmq-server",
)


class ServerMissing(Exception):
    """No binary and no URL: says what to install or to set."""


class Server(Protocol):
    """What a test may do with a server; `url` stays the same all its life.

    `start` returns when it answers, and does nothing where it runs already.
    """

    url: str
    restartable: bool

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def restart(self, kill: bool = False) -> None: ...
    def close(self) -> None: ...


def rabbitmq() -> Server:
    """A started RabbitMQ: the one of FCCL_TEST_RABBITMQ_URL, or a private one.

    Raises:
        ServerMissing: Neither is to be had.
    """
    url = os.environ.get("FCCL_TEST_RABBITMQ_URL")
    return ExternalServer(url) if url else _started(PrivateRabbitMQ())


def redis_server() -> Server:
    """A started Redis: the one of FCCL_TEST_REDIS_URL, or a private one.

    Raises:
        ServerMissing: Neither is to be had.
    """
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
    """A server that somebody else runs."""

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


class PrivateRedis:
    """A redis-server that writes every command to its append-only file."""

    restartable = True

    def __init__(self) -> None:
        self._binary = _find("redis-server", "redis-server", "FCCL_TEST_REDIS_URL")
        self._directory = Path(tempfile.mkdtemp(prefix="fccl-redis-"))
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        options = {
            "port": str(self._port),
            "bind": "127.0.0.1",
            "dir": str(self._directory),
            "appendonly": "yes",
            "save": "",
            "logfile": str(self._directory / "redis.log"),
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen([self._binary, *words], stdin=subprocess.DEVNULL)
        _wait_ready(self._process, self._answers, self._directory / "redis.log")

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=1.0) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def stop(self) -> None:
        _end(self._process, signal.SIGTERM)

    def kill(self) -> None:
        _end(self._process, signal.SIGKILL)

    def restart(self, kill: bool = False, wipe: bool = False) -> None:
        """Stop (or kill) and start again; with `wipe`, as an empty server."""
        self.kill() if kill else self.stop()
        if wipe:
            shutil.rmtree(self._directory / "appendonlydir", ignore_errors=True)
        self.start()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)


class PrivateRabbitMQ:
    """A RabbitMQ node with a port mapper (epmd) of its own, so that nothing stays behind."""

    restartable = True

    def __init__(self) -> None:
        scripts = [path for path in _RABBITMQ_SCRIPTS if Path(path).exists()]
        self._script = (scripts or [_find_rabbitmq()])[0]
        self._epmd = _find("epmd", "rabbitmq-server (it brings Erlang)", "FCCL_TEST_RABBITMQ_URL")
        self._directory = Path(tempfile.mkdtemp(prefix="fccl-rabbitmq-"))
        self._port, self._dist_port, self._epmd_port = free_port(), free_port(), free_port()
        self._environment = self._make_environment()
        self._mapper: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}/%2F"

    def _make_environment(self) -> dict[str, str]:
        home = self._directory
        (home / "rabbitmq.conf").write_text("disk_free_limit.absolute = 16MB\n")
        (home / "enabled_plugins").write_text("[].\n")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("RABBITMQ_")}
        return inherited | {
            "HOME": str(home),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"fccl{self._port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_LOGS": str(home / "rabbitmq.log"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(home / "generated"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            # Schedulers that spin while idle would take the cores from the tests.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        if self._mapper is None:
            self._mapper = subprocess.Popen(
                [self._epmd, "-port", str(self._epmd_port), "-address", "127.0.0.1"],
                stdin=subprocess.DEVNULL,
            )
        (self._directory / "pid").unlink(missing_ok=True)
        with (self._directory / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                [self._script],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # The script starts the node as its child: a group of our own holds both.
                start_new_session=True,
            )
        _wait_ready(self._process, self._answers, self._directory / "output.log")

    def _answers(self) -> bool:
        """The port opens before the node takes connections, so only a login proves it ready."""
        parameters = pika.URLParameters(self.url)
        parameters.socket_timeout = parameters.stack_timeout = 2.0
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1.0):
                pass
            pika.BlockingConnection(parameters).close()
        except (OSError, pika.exceptions.AMQPError):
            return False
        return True

    def stop(self) -> None:
        self._end_node(signal.SIGTERM)

    def kill(self) -> None:
        self._end_node(signal.SIGKILL)

    def _end_node(self, how: signal.Signals) -> None:
        """Signal the node itself; the script that started it then sees it end and follows.

        Without the node's own id (it never came up) the script's process group is all there is.
        """
        if self._process is None or self._process.poll() is not None:
            return
        try:
            os.kill(int((self._directory / "pid").read_text()), how)
        except (OSError, ValueError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(STOP_SECONDS)

    def restart(self, kill: bool = False) -> None:
        """Stop (or kill) the node and start it again, on the same port, with the same data."""
        self.kill() if kill else self.stop()
        self.start()

    def close(self) -> None:
        self.kill()
        _end(self._mapper, signal.SIGTERM)
        shutil.rmtree(self._directory, ignore_errors=True)


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _find_rabbitmq() -> str:
    return _find("rabbitmq-server", "rabbitmq-server", "FCCL_TEST_RABBITMQ_URL")


def _find(binary: str, package: str, variable: str) -> str:
    path = shutil.which(binary)
    if path is None:
        raise ServerMissing(f"{binary} is not on PATH: install {package}, or set {variable}")
    return path


def _wait_ready(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise RuntimeError(f"{process.args!r} did not become ready\n{tail}")
        time.sleep(POLL_SECONDS)


def _end(process: subprocess.Popen[bytes] | None, how: signal.Signals) -> None:
    if process is not None:
        process.send_signal(how)
        process.wait(STOP_SECONDS)

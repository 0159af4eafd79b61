"""Start and stop of private servers, which run the binaries of this machine.

They keep everything in one folder each, and share nothing with another RabbitMQ or Redis of the
machine. They listen on loopback only, except where they use TLS for other machines. `fccl services`
starts them for users, and tests start them, too. `rabbitmq_server` and `redis_server` hold what
differs between the two.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from cli.services.ports import HOST
from cli.services.processes import Process, ProcessRecord, load, wait_gone
from common.errors import ConfigError, FcclError

START_SECONDS = 90.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.05
TAIL_LINES = 15

INSTALL_REMEDY = (
    "install {0} (Debian, Ubuntu: sudo apt-get install {1}; macOS: brew install {2}), "
    "or use Docker: docker compose up -d --wait"
)


@dataclass(frozen=True)
class TlsFiles:
    """Certificate and key of a server, and the address at which it uses them."""

    port: int
    ca: Path
    certificate: Path
    key: Path
    host: str = HOST


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
        """Return the binaries, or raise an `FcclError` that says how to install a missing one."""

    def launch(self) -> None:
        """Start the processes, and return before they are ready."""

    def answers(self) -> bool:
        """Return whether the server accepts a login."""

    def end(self, record: ProcessRecord, number: signal.Signals) -> None:
        """Signal the processes, and return when they are gone."""


def record_path(home: Path) -> Path:
    return home / "processes.json"


def start(
    server: Server,
    on_wait: Callable[[float], None] = lambda seconds: None,
    on_log: Callable[[str], None] = lambda line: None,
) -> None:
    """Start a server unless it runs already, and return when it accepts a login.

    Args:
        server: The server.
        on_wait: Called repeatedly with the number of seconds that it has taken.
        on_log: Called with the last lines of the server's log if it does not become ready.

    Raises:
        FcclError: The server did not become ready. If it was started here, it is stopped again.
    """
    if load(record_path(server.home)).alive:
        _wait(server, on_wait, on_log)
        return
    stop(server)  # what is left of an earlier one
    try:
        server.launch()
        _wait(server, on_wait, on_log)
    except BaseException:
        stop(server, signal.SIGKILL)
        raise


def _wait(server: Server, on_wait: Callable[[float], None], on_log: Callable[[str], None]) -> None:
    began = time.monotonic()
    while not server.answers():
        passed = time.monotonic() - began
        if passed > START_SECONDS or not load(record_path(server.home)).alive:
            for line in _log_tail(server.log):
                on_log(line)
            raise server.error(
                f"{server.name} did not become ready", f"the whole log is {server.log}"
            )
        on_wait(passed)
        time.sleep(POLL_SECONDS)


def stop(server: Server, number: signal.Signals = signal.SIGTERM) -> bool:
    """Stop what `start` started, and return whether there was anything to stop.

    Raises:
        FcclError: The server does not end.
    """
    record = load(record_path(server.home))
    if not record.running:
        record_path(server.home).unlink(missing_ok=True)
        return False
    server.end(record, number)
    if running := record.running:
        raise server.error(
            f"{server.name} does not end (process {running[0].pid})", f"see {server.log}"
        )
    record_path(server.home).unlink(missing_ok=True)
    return True


def _log_tail(log: Path) -> list[str]:
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ["(no log)"]
    return text.splitlines()[-TAIL_LINES:]


def make_home(home: Path) -> None:
    """Create the folder of a server; only its owner may enter."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"{home}: {error.strerror}", "name a writable directory") from None


def end_processes(processes: tuple[Process, ...], number: signal.Signals) -> None:
    """Signal processes, and kill those that do not end in time."""
    for process in processes:
        process.signal(number)
    if not wait_gone(processes, STOP_SECONDS):
        for process in processes:
            process.signal(signal.SIGKILL)
        wait_gone(processes, STOP_SECONDS)

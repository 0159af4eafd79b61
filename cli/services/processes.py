"""Processes that outlive the command that started them, and that a later command recognises.

A process id alone is not enough, because the system reuses it. Each process is therefore recorded
with its start time, and signalled only if both agree.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from signal import Signals

from cli.signals import ending_signals
from common.environment import without_secrets
from common.files import write_durable

POLL_SECONDS = 0.02

_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """Process that was started here."""

    role: str
    pid: int  # also the id of its session, if it leads one
    began: str  # result of `start_time` when the process was new

    @property
    def alive(self) -> bool:
        """True while the process that was started runs, and no other with its id."""
        return start_time(self.pid) == self.began

    def signal(self, number: Signals) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def signal_session(self, number: Signals) -> None:
        """Send a signal to the process and to all that it started."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)


@contextmanager
def defer_interrupt() -> Iterator[None]:
    """Defer the signals that end a command until the end of the block.

    Otherwise one could come between the start of a process and its record, and that process would
    never be stopped. This uses handlers, because a new process would inherit a signal mask.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main thread only
        return
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: received.append(number))
        for number in ending_signals()
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            os.kill(os.getpid(), received[0])


def spawn(role: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
    """Start a process in a session of its own, so that no hang-up and no Ctrl-C reaches it.

    Its output goes to `log`, whose folder becomes its working directory. Its environment
    is `environment` alone, without secrets of other programs.
    """
    with log.open("ab") as output:
        pid = subprocess.Popen(
            list(command),
            env=without_secrets(environment),
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        ).pid
    return Process(role, pid, start_time(pid) or "")


def find_process(role: str, pid: int) -> Process | None:
    """Return a running process by the id that it has just written to a file; None if it is gone."""
    began = start_time(pid)
    return None if began is None else Process(role, pid, began)


def start_time(pid: int) -> str | None:
    """Return when a process began, in the system's own format; None if no such process runs.

    A zombie does not run.
    """
    return _start_time_linux(pid) if _PROC.joinpath("self/stat").exists() else _start_time_ps(pid)


def _start_time_linux(pid: int) -> str | None:
    try:
        text = _PROC.joinpath(str(pid), "stat").read_text(errors="replace")
        # The name stands in parentheses and may hold anything, spaces and parentheses too.
        fields = text.rpartition(")")[2].split()
        boot = _PROC.joinpath("sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    state, ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{boot}:{ticks}"


def _start_time_ps(pid: int) -> str | None:
    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    environment = os.environ | {"LC_ALL": "C", "TZ": "UTC"}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    state, _, moment = answer.stdout.strip().partition(" ")
    return None if not moment or state.startswith("Z") else " ".join(moment.split())


def wait_gone(processes: Iterable[Process], seconds: float) -> bool:
    """Wait until all processes have ended, and return whether they did in time."""
    deadline = time.monotonic() + seconds
    waiting = [process for process in processes if process.alive]
    while waiting and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        waiting = [process for process in waiting if process.alive]
    return not waiting


@dataclass(frozen=True)
class ProcessRecord:
    """Record of a server's processes, kept in its folder."""

    ports: Mapping[str, int]  # by use: `main`, and for RabbitMQ `management`
    processes: tuple[Process, ...]  # in the order of their start

    @property
    def alive(self) -> bool:
        return bool(self.processes) and all(process.alive for process in self.processes)

    @property
    def running(self) -> tuple[Process, ...]:
        return tuple(process for process in self.processes if process.alive)

    def save(self, path: Path) -> None:
        fields = {"ports": dict(self.ports), "processes": [asdict(p) for p in self.processes]}
        write_durable(path, json.dumps(fields, indent=2).encode())


def load(path: Path) -> ProcessRecord:
    """Return the record in a file; an empty one if the file is missing or cannot be read."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        ports = {str(use): int(port) for use, port in fields["ports"].items()}
        processes = tuple(
            Process(str(p["role"]), int(p["pid"]), str(p["began"])) for p in fields["processes"]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ProcessRecord({}, ())
    return ProcessRecord(ports, processes)

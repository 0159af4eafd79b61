"""Processes that outlive the command that started them, and are known again by a later one.

A process id alone names nobody: the system gives it to another process one day. So each is
remembered with the moment at which it began, and nothing is signalled unless both are as they
were.
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

from common.files import write_durable

POLL_SECONDS = 0.02

_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """A process of ours.

    Attributes:
        role: What it is for.
        pid: Its id; where it leads a session, the session's, too.
        began: When, in the system's own words (see `began`).
    """

    role: str
    pid: int
    began: str

    @property
    def alive(self) -> bool:
        """Whether it still runs, and it is that one."""
        return began(self.pid) == self.began

    def signal(self, how: Signals) -> None:
        """Send a signal; does nothing where it runs no more."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, how)

    def signal_session(self, how: Signals) -> None:
        """Send a signal to it and to all that it started."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, how)


@contextmanager
def unbroken() -> Iterator[None]:
    """Hold back a Ctrl-C until the end of the block.

    Otherwise it can come between the start of a process and the moment when it is remembered, and
    that process would stay behind. A handler, no mask: the process would inherit a mask.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Ctrl-C goes to the main thread only
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            raise KeyboardInterrupt


def spawn(role: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
    """Start a process in a session of its own: no terminal's end and no Ctrl-C reaches it.

    Args:
        role: What it is for.
        command: The program, and its arguments.
        environment: All of its variables.
        log: Takes what it prints; it runs in this file's folder.
    """
    with log.open("ab") as output:
        pid = subprocess.Popen(
            list(command),
            env=dict(environment),
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        ).pid
    return Process(role, pid, began(pid) or "")


def known(role: str, pid: int) -> Process | None:
    """A running process, by an id that it has itself written down a moment ago."""
    moment = began(pid)
    return None if moment is None else Process(role, pid, moment)


def began(pid: int) -> str | None:
    """When a process began; None where none of that id runs, or only its exit code is left."""
    return _began_linux(pid) if _PROC.joinpath("self/stat").exists() else _began_ps(pid)


def _began_linux(pid: int) -> str | None:
    try:
        text = _PROC.joinpath(str(pid), "stat").read_text(errors="replace")
        # The name stands in parentheses and may hold anything, spaces and parentheses too.
        fields = text.rpartition(")")[2].split()
        boot = _PROC.joinpath("sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    state, ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{boot}:{ticks}"


def _began_ps(pid: int) -> str | None:
    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    environment = os.environ | {"LC_ALL": "C", "TZ": "UTC"}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    state, _, moment = answer.stdout.strip().partition(" ")
    return None if not moment or state.startswith("Z") else " ".join(moment.split())


def wait_gone(processes: Iterable[Process], seconds: float) -> bool:
    """Whether all of them are gone within the time."""
    deadline = time.monotonic() + seconds
    waiting = [process for process in processes if process.alive]
    while waiting and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        waiting = [process for process in waiting if process.alive]
    return not waiting


@dataclass(frozen=True)
class Record:
    """What one server's folder says of it.

    Attributes:
        ports: By their use: `main`, and for RabbitMQ `management`.
        processes: In the order in which they were started.
    """

    ports: Mapping[str, int]
    processes: tuple[Process, ...]

    @property
    def alive(self) -> bool:
        """Whether all of its processes run."""
        return bool(self.processes) and all(process.alive for process in self.processes)

    @property
    def left(self) -> tuple[Process, ...]:
        """Those of its processes that run."""
        return tuple(process for process in self.processes if process.alive)

    def save(self, path: Path) -> None:
        """Write it down."""
        fields = {"ports": dict(self.ports), "processes": [asdict(p) for p in self.processes]}
        write_durable(path, json.dumps(fields, indent=2).encode())


def load(path: Path) -> Record:
    """The record of a file; an empty one where there is none, or none that can be read."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        ports = {str(use): int(port) for use, port in fields["ports"].items()}
        processes = tuple(
            Process(str(p["role"]), int(p["pid"]), str(p["began"])) for p in fields["processes"]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Record({}, ())
    return Record(ports, processes)

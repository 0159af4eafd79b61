"""Processes of an arm: each in a session of its own, with its output in a file."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from common.errors import RunError

POLL_S = 0.2
STOP_S = 20.0


class Processes:
    """Starter of processes; those that still run are killed at the end of a `with` block."""

    def __init__(self, logs: Path) -> None:
        """Create it; output of the process NAME is appended to NAME.log of the folder `logs`."""
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = logs
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(self._started):
            self.kill(name)

    def start(
        self, name: str, command: Sequence[str | Path], environment: Mapping[str, str], cwd: Path
    ) -> None:
        with self.log(name).open("ab") as log:
            self._started[name] = subprocess.Popen(
                [str(word) for word in command],
                cwd=cwd,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(
        self, name: str, command: Sequence[str | Path], environment: Mapping[str, str], cwd: Path
    ) -> str:
        """Run a command to its end, and return its standard output.

        Raises:
            RunError: It failed.
        """
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        with self.log(name).open("a", encoding="utf-8") as log:
            log.write(done.stdout + done.stderr)
        if done.returncode:
            raise RunError(f"{name} failed: {done.stderr[-500:]}", f"see {self.log(name)}")
        return done.stdout

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def kill(self, *names: str) -> None:
        """Kill processes with all that they have started, as a power failure would."""
        for name in names:
            process = self._started[name]
            children = []
            with contextlib.suppress(psutil.NoSuchProcess):
                children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()

    def stop(self, name: str) -> None:
        """Ask a process to end, and kill it if it does not."""
        process = self._started[name]
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        self.kill(name)


def wait_until(condition: Callable[[], bool], what: str, limit_s: float = 600.0) -> None:
    """Wait for a condition.

    Raises:
        RunError: The time is over.
    """
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise RunError(f"{what} did not happen in {limit_s:.0f} s", "see the logs")
        time.sleep(POLL_S)

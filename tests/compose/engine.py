"""The compose file of the repository as one project, with a run directory of its own.

Standard library only: this runs with any Python, where nothing of fccl is installed.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Path(__file__).with_name("federation.toml")
LONG = 300.0
"""Limit of a wait for something that must happen, in seconds."""
POLL = 0.2

T = TypeVar("T")


class Failed(Exception):
    """A step of the test failed."""


def until(what: str, condition: Callable[[], T], deadline_s: float = LONG) -> T:
    """Return the value of `condition` as soon as it is true.

    Raises:
        Failed: It was not in time.
    """
    deadline = time.monotonic() + deadline_s
    while not (value := condition()):
        if time.monotonic() >= deadline:
            raise Failed(f"did not happen within {deadline_s:.0f} s: {what}")
        time.sleep(POLL)
    return value


def compose_command() -> list[str]:
    """Return `docker compose`, or the older `docker-compose`.

    Raises:
        Failed: There is neither, or no engine answers.
    """
    if not _succeeds("docker", "info"):
        raise Failed("no Docker engine answers")
    if _succeeds("docker", "compose", "version"):
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise Failed("docker has no compose: install the plugin, or docker-compose")


class Project:
    """One compose project.

    Args:
        directory: Folder of the run and of the commands' output.
        name: Prefix of its containers, networks and volumes.
        files: Compose files after `docker-compose.yml`.
        variables: Variables of the compose files.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        config: Path = CONFIG,
        files: Sequence[str] = (),
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.runs = directory / "runs"
        self.runs.mkdir()
        self.run = self.runs / "small"
        self.log = directory / "compose.log"
        self._name = name
        chosen = [word for file in ("docker-compose.yml", *files) for word in ("-f", file)]
        self._compose = [*compose_command(), "-p", name, *chosen]
        self._environment = os.environ | {
            "FCCL_CONFIG": str(config),
            "FCCL_RUNS": str(self.runs),
            "FCCL_BROKER_PORT": str(free_port()),
            "FCCL_STORE_PORT": str(free_port()),
            **variables,
        }

    def begin(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a compose command; its output goes to the log."""
        with self.log.open("ab") as log:
            log.write(f"\n$ compose {' '.join(words)}\n".encode())
            log.flush()
            return subprocess.Popen(
                [*self._compose, *words],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def compose(self, *words: str) -> int:
        """Run a compose command, and return its exit code."""
        return self.begin(*words).wait()

    def must(self, *words: str) -> None:
        """Run a compose command.

        Raises:
            Failed: The exit code is not 0.
        """
        if code := self.compose(*words):
            raise Failed(f"compose {' '.join(words)} ended with {code}")

    def output(self, *words: str) -> str:
        """Return the standard output of a compose command.

        Raises:
            Failed: The exit code is not 0.
        """
        done = subprocess.run(
            [*self._compose, *words],
            check=False,
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Failed(f"compose {' '.join(words)}: {done.stderr.strip()[-300:]}")
        return done.stdout.strip()

    # Containers

    def container(self, service: str) -> str:
        """Return the id of a service's first container."""
        labels = {"project": self._name, "service": service, "container-number": "1"}
        filters = [f"--filter=label=com.docker.compose.{k}={v}" for k, v in labels.items()]
        return docker("ps", "--all", "--quiet", "--no-trunc", *filters)

    def state(self, container: str) -> dict[str, object]:
        """Return the engine's state of a container."""
        return dict(json.loads(docker("inspect", "--format", "{{json .State}}", container)))

    def restarts(self, container: str) -> int:
        """Return how often the restart policy has restarted a container."""
        return int(docker("inspect", "--format", "{{.RestartCount}}", container))

    # The run

    def version(self) -> int:
        """Return the newest version, by the lines of a file, which any file system shares well."""
        try:
            return (self.run / "progress.jsonl").read_text(encoding="utf-8").count("\n") - 1
        except FileNotFoundError:
            return -1

    def reaches(self, version: int) -> None:
        until(f"version {version}", lambda: self.version() >= version)


def docker(*words: str, both: bool = False) -> str:
    """Return the output of a docker command, with `both` also its standard error.

    Raises:
        Failed: The exit code is not 0.
    """
    done = subprocess.run(["docker", *words], check=False, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"docker {' '.join(words)}: {done.stderr.strip()[-300:]}")
    return (done.stdout + done.stderr if both else done.stdout).strip()


def _succeeds(*words: str) -> bool:
    try:
        return subprocess.run(words, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def say(line: str) -> None:
    """Print a line of the result, unbuffered."""
    print(line)
    sys.stdout.flush()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])

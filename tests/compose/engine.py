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
"""Bounds a wait for something that must come; seconds."""
POLL = 0.2

T = TypeVar("T")


class Failed(Exception):
    """What should have happened did not."""


def until(what: str, look: Callable[[], T], deadline_s: float = LONG) -> T:
    """What `look` finds, as soon as it is true.

    Raises:
        Failed: It was not in time.
    """
    deadline = time.monotonic() + deadline_s
    while not (found := look()):
        if time.monotonic() >= deadline:
            raise Failed(f"did not happen within {deadline_s:.0f} s: {what}")
        time.sleep(POLL)
    return found


def compose_command() -> list[str]:
    """`docker compose`, or the older `docker-compose`.

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
        directory: For the run and for what the commands print.
        name: Of the project; its containers, networks and volumes carry it.
        config: Its plan.
        files: Compose files beside the first.
        variables: More of their variables.
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
        """A compose command, to its end; returns the exit code."""
        return self.begin(*words).wait()

    def must(self, *words: str) -> None:
        """The same.

        Raises:
            Failed: The exit code is not 0.
        """
        if code := self.compose(*words):
            raise Failed(f"compose {' '.join(words)} ended with {code}")

    def output(self, *words: str) -> str:
        """What a compose command prints to its standard output.

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

    # containers

    def container(self, service: str) -> str:
        """The id of a service's first container."""
        labels = {"project": self._name, "service": service, "container-number": "1"}
        filters = [f"--filter=label=com.docker.compose.{k}={v}" for k, v in labels.items()]
        return docker("ps", "--all", "--quiet", "--no-trunc", *filters)

    def state(self, container: str) -> dict[str, object]:
        """What the engine says of a container."""
        return dict(json.loads(docker("inspect", "--format", "{{json .State}}", container)))

    def restarts(self, container: str) -> int:
        """How often the restart policy has brought it back."""
        return int(docker("inspect", "--format", "{{.RestartCount}}", container))

    # the run

    def version(self) -> int:
        """The newest version: lines of a plain file, which any file system shares well."""
        try:
            return (self.run / "progress.jsonl").read_text(encoding="utf-8").count("\n") - 1
        except FileNotFoundError:
            return -1

    def reaches(self, version: int) -> None:
        """Wait for a version."""
        until(f"version {version}", lambda: self.version() >= version)


def docker(*words: str, both: bool = False) -> str:
    """A docker command; its output, with `both` also what it prints to standard error.

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
    """One line of the result, at once."""
    print(line)
    sys.stdout.flush()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
